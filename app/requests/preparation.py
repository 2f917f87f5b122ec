"""From a submission to the row to insert: the one place that decides whether a request may be made at all."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

from app.catalog.snapshot import Snapshot
from app.db.ids import new_id
from app.db.rows import LlmModel, LlmModelStatus, LlmProvider, ModelOperation
from app.errors import ModelUnavailable, NotFound, RequestRefused, ValidationError
from app.limits.estimate import estimate_input_tokens, max_output_tokens
from app.providers.operations import OPERATION_OF, Operation, OperationRequest, encode
from app.requests.capabilities import check_capabilities
from app.requests.idempotency import submission_digest
from app.requests.parameters import check_parameters
from app.requests.payload import OPERATION_OF_TYPE, operation_request
from app.requests.records import NewRequest, SubmitRequest
from app.requests.validation import bounded_payload, validate_submission

MAX_ATTEMPTS: Final = 3
"""Per model."""
_INT4_MAX: Final = 2**31 - 1
_OPERATIONS: Final = {operation: ModelOperation(operation.name) for operation in Operation}
_FIELDS: Final = {Operation.CHAT: "messages"}


class Preparation:
    """`adapters`: the wire protocols that workers speak; a model of another is refused."""

    def __init__(self, *, adapters: Collection[str], default_max_output_tokens: int) -> None:
        self._adapters = frozenset(adapters)
        self._default_max_output_tokens = default_max_output_tokens
        self._latest: tuple[Snapshot, str, str, tuple[LlmModel, LlmProvider]] | None = None

    def prepare(
        self,
        submission: SubmitRequest,
        snapshot: Snapshot,
        *,
        workspace_id: str,
        created_by: str | None,
        now: datetime,
        owner_id: str | None = None,
    ) -> NewRequest:
        """Raises ValidationError, NotFound and ModelUnavailable."""
        model, provider = self.usable_model(snapshot, submission.model, workspace_id)
        validate_submission(submission, now=now)
        request = operation_request(submission, model.model_type)
        operation = OPERATION_OF[type(request)]
        self._check_kind(operation, model, snapshot)
        check_capabilities(request, model)
        parameters = check_parameters(submission.parameters, model)
        payload = bounded_payload(_FIELDS.get(operation, "input"), _encoded(request))
        fallbacks = self._fallbacks(submission, request, snapshot, workspace_id) if submission.fallbacks else ()
        ref = snapshot.ref(model)
        return NewRequest(
            id=new_id(),
            workspace_id=workspace_id,
            provider_id=provider.id,
            model_id=model.id,
            model_ref=ref,
            operation=_OPERATIONS[operation],
            priority=submission.priority,
            idempotency_key=submission.idempotency_key,
            request_digest=submission_digest(submission, ref),
            deadline=submission.deadline,
            owner_id=owner_id,
            is_streamed=submission.stream,
            fallbacks=" ".join(fallback.id for fallback in fallbacks),
            payload=payload,
            parameters=parameters,
            metadata=submission.metadata,
            reserved_tokens=self._reserve(request, parameters, model, provider),
            max_attempts=MAX_ATTEMPTS,
            created_by=created_by,
        )

    def _fallbacks(
        self, submission: SubmitRequest, request: OperationRequest, snapshot: Snapshot, workspace_id: str
    ) -> list[LlmModel]:
        found = []
        for place, name in enumerate(submission.fallbacks):
            try:
                fallback, _ = self.usable_model(snapshot, name, workspace_id)
                self._check_kind(OPERATION_OF[type(request)], fallback, snapshot)
                check_capabilities(request, fallback)
            except RequestRefused as refused:
                refused.path = ("fallbacks", str(place))
                raise
            found.append(fallback)
        return found

    def usable_model(self, snapshot: Snapshot, name: str, workspace_id: str) -> tuple[LlmModel, LlmProvider]:
        """By ref or id. Raises NotFound and ModelUnavailable."""
        latest = self._latest
        # The requests of a batch mostly name one model, and a snapshot never changes.
        if latest is not None and latest[0] is snapshot and latest[1] == workspace_id and latest[2] == name:
            return latest[3]
        usable = self._find_usable(snapshot, name, workspace_id)
        self._latest = (snapshot, workspace_id, name, usable)
        return usable

    def _find_usable(self, snapshot: Snapshot, name: str, workspace_id: str) -> tuple[LlmModel, LlmProvider]:
        model = snapshot.model(name)
        if model is None and (":" in name or name.startswith("#/")):
            model = snapshot.model_by_ref(name, workspace_id)
        if model is None or model.workspace_id != workspace_id:
            raise NotFound("LlmModel", name, path=("model",))
        provider = snapshot.provider_of(model)
        reason = None
        if model.status is not LlmModelStatus.ACTIVE:
            reason = f"it is {model.status.lower()}"
        elif not provider.is_enabled:
            reason = f"provider {provider.name!r} is disabled"
        elif provider.adapter not in self._adapters:
            reason = f"its provider's protocol {provider.adapter!r} is not one of {', '.join(sorted(self._adapters))}"
        elif not provider.base_url and provider.name != provider.adapter:
            reason = f"provider {provider.name!r} has no base URL"
        if reason is not None:
            raise ModelUnavailable(snapshot.ref(model), reason, snapshot.alternatives(model), path=("model",))
        return model, provider

    def _check_kind(self, operation: Operation, model: LlmModel, snapshot: Snapshot) -> None:
        if OPERATION_OF_TYPE[model.model_type] is not operation:
            raise ValidationError(
                "model", snapshot.ref(model), f"a model for {operation}: this one is of type {model.model_type}"
            )

    def _reserve(
        self, request: OperationRequest, parameters: dict[str, object], model: LlmModel, provider: LlmProvider
    ) -> int:
        output = max_output_tokens(request, parameters, model.max_output_tokens, self._default_max_output_tokens)
        estimated = estimate_input_tokens(request, parameters)
        reserved = estimated + output
        limit = provider.tokens_per_minute if provider.tokens_per_minute is not None else _INT4_MAX
        if reserved > limit:
            raise ValidationError(
                "parameters.max_tokens",
                output,
                f"at most {max(limit - estimated, 0)}: the request may take {reserved} tokens "
                f"and provider {provider.name!r} allows {limit} per minute",
            )
        return reserved


def _encoded(request: OperationRequest) -> bytes:
    try:
        return encode(request)
    except UnicodeEncodeError:
        raise ValidationError("messages", "half of a surrogate pair", "valid Unicode text") from None
