"""What whole and streamed answers of the gateway's /v1/messages have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.errors import TollgateError
from app.prices.records import Usage
from app.providers.bodies import public_message, status_of
from app.providers.dialect import Answered
from app.providers.operations import FinishReason

_STOP_REASONS: Final[Mapping[FinishReason | None, str]] = {
    None: "end_turn",
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CONTENT_FILTER: "refusal",
}
_ERROR_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def empty_message(answered: Answered) -> dict[str, Any]:
    return {
        "id": f"msg_{answered.request_id}",
        "type": "message",
        "role": "assistant",
        "model": answered.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": wire_usage(Usage()),
    }


def ending(finish_reason: FinishReason | None, refusal: str | None) -> dict[str, Any]:
    """A refusal in words is told as Anthropic tells its own."""
    if refusal is None:
        return {"stop_reason": _STOP_REASONS[finish_reason], "stop_sequence": None}
    details = {"type": "refusal", "category": None, "explanation": refusal}
    return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}


def wire_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def error_body(error: TollgateError) -> dict[str, Any]:
    kind = _ERROR_TYPES.get(status := status_of(error), "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": public_message(error)}}
