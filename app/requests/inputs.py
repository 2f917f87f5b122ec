"""The GraphQL inputs of requests, and the records that they stand for."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any

import strawberry

from app.api.mutations import or_none
from app.api.scalars import JSON
from app.errors import ValidationError
from app.requests import records

# Registers the enums themselves, so that annotations name them as they are.
strawberry.enum(records.ModelRequestStatus)
strawberry.enum(records.ModelOperation)
strawberry.enum(
    records.RequestAttemptStatus,
    description="LOST: its worker's lease ran out. RELEASED: given back before anything was sent.",
)


@strawberry.enum
class MessageRole(Enum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@strawberry.input
class MessageInput:
    role: MessageRole
    content: str


@strawberry.input(description="`messages` or `input`, not both.")
class SubmitRequestInput:
    model: str = strawberry.field(description='A reference ("openai:gpt-4o") or the id of a model.')
    messages: list[MessageInput] | None = strawberry.UNSET
    input: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="A text for a model of text, code, images, video, embeddings or moderation; for the latter two "
        "also a list of texts; else an object: {messages: [{role, parts}], tools, tool_choice, response_format} for "
        "text with tools or images, {query, documents} to rerank, {text, voice} to speak, {audio, filename} "
        "(base64) to transcribe.",
    )
    parameters: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="An object of what the provider takes: temperature, max_tokens, ..."
    )
    fallbacks: list[str] | None = strawberry.field(
        default=strawberry.UNSET,
        description="Models to go on with, in this order, when the one before is exhausted.",
    )
    stream: bool | None = strawberry.field(
        default=False, description="Whether requestOutput shows the answer while it comes."
    )
    priority: int | None = strawberry.field(default=0, description="The greater the sooner.")
    idempotency_key: str | None = strawberry.UNSET
    deadline: datetime | None = strawberry.UNSET
    metadata: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="An object of the caller's own, returned as it is."
    )

    def to_record(self) -> records.SubmitRequest:
        messages = or_none(self.messages)
        return records.SubmitRequest(
            model=self.model,
            messages=None
            if messages is None
            else [{"role": message.role.value, "content": message.content} for message in messages],
            input=or_none(self.input),
            parameters=_object("parameters", self.parameters),
            priority=self.priority or 0,
            idempotency_key=or_none(self.idempotency_key),
            deadline=or_none(self.deadline),
            metadata=_object("metadata", self.metadata),
            fallbacks=tuple(or_none(self.fallbacks) or ()),
            stream=bool(self.stream),
        )


def batch_records(inputs: list[SubmitRequestInput]) -> list[records.SubmitRequest]:
    """Raises ValidationError that names the place of its input."""
    found = []
    for place, item in enumerate(inputs):
        try:
            found.append(item.to_record())
        except ValidationError as error:
            error.path = ("inputs", str(place), *error.path)
            raise
    return found


@strawberry.input(description="A request passes where it meets each bound that is given.")
class ModelRequestFilter:
    ids: list[strawberry.ID] | None = strawberry.UNSET
    status: records.ModelRequestStatus | None = strawberry.UNSET
    provider_id: strawberry.ID | None = strawberry.UNSET
    model_id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="The model's id.")
    created_after: datetime | None = strawberry.field(default=strawberry.UNSET, description="At or after.")
    created_before: datetime | None = strawberry.field(default=strawberry.UNSET, description="Before.")

    @staticmethod
    def to_record(filter: ModelRequestFilter | None) -> records.RequestFilter:
        if filter is None:
            return records.RequestFilter()
        return records.RequestFilter(**{name: or_none(value) for name, value in vars(filter).items()})


def _object(field: str, value: Any) -> dict[str, Any]:
    value = or_none(value)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValidationError(field, value, "a JSON object")
    return value
