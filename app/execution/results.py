"""From how an attempt ended to what is written of it."""

from __future__ import annotations

from typing import Final

from app.errors import AuthenticationFailed, PermitExpired, ProviderError
from app.execution.attempt import Attempt, Progress
from app.providers.operations import ChatOutput, OperationOutput, TranscriptionOutput
from app.requests.lifecycle import ATTEMPTS_PER_FALLBACK, Decision, is_provider_fault, is_retryable
from app.requests.records import AttemptError, AttemptResult, Outcome

_MIN_SECRET_LENGTH: Final = 8


def completed(attempt: Attempt, progress: Progress) -> AttemptResult:
    response, usage = attempt.response, attempt.usage
    assert response is not None
    assert usage is not None
    return AttemptResult(
        request_id=attempt.claim.request_id,
        lease_id=attempt.claim.lease_id,
        outcome=Outcome.COMPLETED,
        # An estimate is not good enough to give permits back.
        settled_tokens=None if usage.estimated else usage.total_tokens,
        first_chunk_seconds=progress.first_chunk_seconds,
        output=response.output,
        output_text=text_of(response.output),
        usage=usage,
        cost=attempt.receipt,
        response_model=response.response_model,
        provider_request_id=response.provider_request_id,
        finish_reason=_finish_reason(response.output),
        http_status=200,
    )


def failed(attempt: Attempt, error: ProviderError, decision: Decision, progress: Progress) -> AttemptResult:
    message = _masked(error.message, attempt)
    if decision.reason is not None:
        message = f"{message} ({decision.reason})"
    return AttemptResult(
        request_id=attempt.claim.request_id,
        lease_id=attempt.claim.lease_id,
        outcome=decision.outcome,
        retry_seconds=decision.retry_seconds,
        attempts_more=ATTEMPTS_PER_FALLBACK if decision.outcome is Outcome.FALLBACK else None,
        provider_fault=is_provider_fault(error),
        settled_tokens=_settled_after(error),
        first_chunk_seconds=progress.first_chunk_seconds,
        usage=attempt.usage,
        cost=attempt.receipt,
        error=AttemptError(error.code, message, is_retryable(error), error.http_status),
        cause=error,
        http_status=error.http_status,
        provider_request_id=error.provider_request_id,
    )


def text_of(output: OperationOutput) -> str | None:
    """The first text of an answer; None where it has none."""
    if isinstance(output, ChatOutput):
        return (output.choices[0].text or None) if output.choices else None
    return output.text if isinstance(output, TranscriptionOutput) else None


def _finish_reason(output: OperationOutput) -> str | None:
    return output.choices[0].finish_reason if isinstance(output, ChatOutput) and output.choices else None


def _settled_after(error: ProviderError) -> int | None:
    """Zero where the provider surely used no tokens: nothing was sent, or it refused with a 4xx. Else not known."""
    if isinstance(error, PermitExpired):
        return 0
    if error.http_status is None:
        return 0 if isinstance(error, AuthenticationFailed) else None
    return 0 if 400 <= error.http_status < 500 and error.http_status != 408 else None


def _masked(message: str, attempt: Attempt) -> str:
    """A provider may echo the key it was called with."""
    secret = attempt.credential.get_secret_value() if attempt.credential is not None else ""
    if len(secret) < _MIN_SECRET_LENGTH:
        return message
    message = message.replace(secret, "***")
    # A long message was cut, perhaps in the middle of the key.
    cut = next((size for size in range(len(secret) - 1, 3, -1) if message.endswith(secret[:size])), 0)
    return message[:-cut] + "***" if cut else message
