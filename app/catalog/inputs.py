"""The GraphQL inputs of the catalog, and the records that they stand for."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import strawberry

from app.api.mutations import given, or_none
from app.api.scalars import JSON
from app.catalog import records, select

# Registers the enums themselves, so that annotations name them as they are.
strawberry.enum(records.LlmModelStatus, description="Where a model is in its life.")
strawberry.enum(records.LlmModelType, description="What a model does.")
strawberry.enum(records.UsageUnit, description="What is counted and priced.")
strawberry.enum(
    select.ModelOrderField, name="LlmModelOrderField", description="What is not known comes last, in both directions."
)
strawberry.enum(select.OrderDirection)


@strawberry.input(description="A model passes where it meets each bound that is given.")
class LlmModelFilter:
    provider: str | None = strawberry.field(default=strawberry.UNSET, description="A provider's name or id.")
    is_provider_enabled: bool | None = strawberry.UNSET
    status: list[records.LlmModelStatus] | None = strawberry.UNSET
    model_type: list[records.LlmModelType] | None = strawberry.UNSET
    is_default: bool | None = strawberry.UNSET
    capabilities: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="A model that passes has all of them."
    )
    text: str | None = strawberry.field(
        default=strawberry.UNSET, description="Words that all occur in the reference, name or description."
    )
    min_context_window: int | None = strawberry.UNSET
    has_price: bool | None = strawberry.field(default=strawberry.UNSET, description="Both costs are known.")
    max_cost_input_per_million: Decimal | None = strawberry.UNSET
    max_cost_output_per_million: Decimal | None = strawberry.UNSET

    @staticmethod
    def to_record(filter: LlmModelFilter | None) -> select.ModelFilter:
        if filter is None:
            return select.NO_FILTER
        sent = {name: value for name, value in vars(filter).items() if or_none(value) is not None}
        for name in ("status", "model_type", "capabilities"):
            if name in sent:
                sent[name] = frozenset(sent[name])
        return select.ModelFilter(**sent)


@strawberry.input
class LlmModelOrder:
    field: select.ModelOrderField = select.ModelOrderField.PROVIDER
    direction: select.OrderDirection = select.OrderDirection.ASC

    @staticmethod
    def to_record(order: LlmModelOrder | None) -> select.ModelOrder:
        return select.DEFAULT_ORDER if order is None else select.ModelOrder(order.field, order.direction)


@strawberry.input
class CreateLlmProviderInput:
    name: str
    display_name: str
    adapter: str = "openai"
    base_url: str | None = strawberry.UNSET
    max_parallel_requests: int = 1
    requests_per_minute: int = 60
    tokens_per_minute: int | None = strawberry.UNSET
    is_enabled: bool = True

    def to_record(self) -> records.CreateProvider:
        return records.CreateProvider(**given(self, nullable=("base_url", "tokens_per_minute")))


@strawberry.input(description="What is left out stays as it is.")
class UpdateLlmProviderInput:
    display_name: str | None = strawberry.UNSET
    adapter: str | None = strawberry.UNSET
    base_url: str | None = strawberry.UNSET
    max_parallel_requests: int | None = strawberry.UNSET
    requests_per_minute: int | None = strawberry.UNSET
    tokens_per_minute: int | None = strawberry.UNSET
    is_enabled: bool | None = strawberry.UNSET

    def to_record(self) -> records.UpdateProvider:
        return records.UpdateProvider(**given(self, nullable=("base_url", "tokens_per_minute")))


_RULES = (
    "A list of {name, type, minimum, maximum, default, options, required}; the type is number, integer, string, "
    "boolean, array, object or any. Null: the protocol's own parameters."
)
_MODEL_NULLABLE = (
    "description",
    "context_window",
    "max_output_tokens",
    "cost_input_per_million",
    "cost_output_per_million",
    "parameter_rules",
    "connect_timeout_seconds",
    "read_timeout_seconds",
    "total_timeout_seconds",
)


@strawberry.input
class CreateLlmModelInput:
    provider_id: strawberry.ID
    model_id: str
    display_name: str
    cost_input_per_million: Decimal | None = strawberry.field(
        default=strawberry.UNSET, description="Left out: not known, which is not zero."
    )
    cost_output_per_million: Decimal | None = strawberry.field(
        default=strawberry.UNSET, description="Left out: not known, which is not zero."
    )
    description: str | None = strawberry.UNSET
    model_type: records.LlmModelType = records.LlmModelType.TEXT
    capabilities: list[str] = strawberry.field(default_factory=list)
    context_window: int | None = strawberry.UNSET
    max_output_tokens: int | None = strawberry.UNSET
    is_default: bool = False
    parameter_rules: JSON | None = strawberry.field(default=strawberry.UNSET, description=_RULES)
    allows_unknown_parameters: bool = False
    connect_timeout_seconds: float | None = strawberry.UNSET
    read_timeout_seconds: float | None = strawberry.field(
        default=strawberry.UNSET, description="Between two pieces of an answer."
    )
    total_timeout_seconds: float | None = strawberry.UNSET

    def to_record(self) -> records.CreateModel:
        return records.CreateModel(**_with_tuple(given(self, nullable=_MODEL_NULLABLE)))


@strawberry.input(description="What is left out stays as it is.")
class UpdateLlmModelInput:
    display_name: str | None = strawberry.UNSET
    cost_input_per_million: Decimal | None = strawberry.UNSET
    cost_output_per_million: Decimal | None = strawberry.UNSET
    description: str | None = strawberry.UNSET
    model_type: records.LlmModelType | None = strawberry.UNSET
    capabilities: list[str] | None = strawberry.UNSET
    context_window: int | None = strawberry.UNSET
    max_output_tokens: int | None = strawberry.UNSET
    parameter_rules: JSON | None = strawberry.field(default=strawberry.UNSET, description=_RULES)
    allows_unknown_parameters: bool | None = strawberry.UNSET
    connect_timeout_seconds: float | None = strawberry.UNSET
    read_timeout_seconds: float | None = strawberry.field(
        default=strawberry.UNSET, description="Between two pieces of an answer."
    )
    total_timeout_seconds: float | None = strawberry.UNSET
    status: records.LlmModelStatus | None = strawberry.UNSET

    def to_record(self) -> records.UpdateModel:
        return records.UpdateModel(**_with_tuple(given(self, nullable=_MODEL_NULLABLE)))


def _with_tuple(sent: dict[str, Any]) -> dict[str, Any]:
    capabilities = sent.get("capabilities")
    return sent if not isinstance(capabilities, list) else {**sent, "capabilities": tuple(capabilities)}
