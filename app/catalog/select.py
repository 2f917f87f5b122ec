"""Filters and orders of models over a snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final, assert_never

from app.catalog import search
from app.catalog.pagination import Key, Page, Sorted, paginate, sort_by
from app.catalog.records import DEFAULT_WORKSPACE, LlmModel, LlmModelStatus, LlmModelType
from app.catalog.snapshot import Snapshot
from app.money import PRICE_SCALE

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ModelOrderField(StrEnum):
    """What is not known comes last, in both directions."""

    PROVIDER = "PROVIDER"
    """By provider name, then model id."""
    NAME = "NAME"
    """By display name, regardless of case."""
    COST_INPUT = "COST_INPUT"
    COST_OUTPUT = "COST_OUTPUT"
    CONTEXT_WINDOW = "CONTEXT_WINDOW"
    CREATED_AT = "CREATED_AT"


class OrderDirection(StrEnum):
    ASC = "ASC"
    DESC = "DESC"


@dataclass(frozen=True, slots=True)
class ModelOrder:
    """Models that are equal by `field` keep one order among them, that of their row ids."""

    field: ModelOrderField = ModelOrderField.PROVIDER
    direction: OrderDirection = OrderDirection.ASC


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFilter:
    """A model passes where it meets each bound that is not None. `provider` is a name or an id."""

    provider: str | None = None
    is_provider_enabled: bool | None = None
    status: frozenset[LlmModelStatus] | None = None
    model_type: frozenset[LlmModelType] | None = None
    is_default: bool | None = None
    capabilities: frozenset[str] | None = None
    """A model has all of them."""
    text: str | None = None
    """Words that all occur in the model's reference, display name or description."""
    min_context_window: int | None = None
    has_price: bool | None = None
    """Both costs are known."""
    max_cost_input_per_million: Decimal | None = None
    max_cost_output_per_million: Decimal | None = None


NO_FILTER: Final = ModelFilter()
DEFAULT_ORDER: Final = ModelOrder()


def models_page(
    snapshot: Snapshot,
    filter: ModelFilter = NO_FILTER,
    order: ModelOrder = DEFAULT_ORDER,
    first: int = 50,
    after: str | None = None,
    workspace_id: str = DEFAULT_WORKSPACE,
) -> Page[LlmModel]:
    """Raises ValidationError for a bad `first` or `after`."""
    return paginate(select_models(snapshot, filter, order, workspace_id), first, after)


def select_models(
    snapshot: Snapshot,
    filter: ModelFilter = NO_FILTER,
    order: ModelOrder = DEFAULT_ORDER,
    workspace_id: str = DEFAULT_WORKSPACE,
) -> Sorted[LlmModel]:
    """The models that pass, sorted; remembered by the snapshot, since pages of one selection follow each other."""
    return snapshot.derived(
        ("models", workspace_id, filter, order), lambda: _select(snapshot, filter, order, workspace_id)
    )


def _select(snapshot: Snapshot, filter: ModelFilter, order: ModelOrder, workspace_id: str) -> Sorted[LlmModel]:
    descending = order.direction is OrderDirection.DESC
    return sort_by(
        f"{order.field}:{order.direction}",
        _passing(snapshot, filter, workspace_id),
        lambda model: _key(snapshot, model, order.field, descending),
        descending=descending,
    )


def _passing(snapshot: Snapshot, filter: ModelFilter, workspace_id: str) -> Iterator[LlmModel]:
    found = None if filter.text is None else search.matching_ids(snapshot, filter.text)
    for model in snapshot.models:
        if model.workspace_id == workspace_id and (found is None or model.id in found):
            provider = snapshot.provider_of(model)
            if filter.provider is not None and filter.provider not in (provider.name, provider.id):
                continue
            if filter.is_provider_enabled is not None and provider.is_enabled is not filter.is_provider_enabled:
                continue
            if _passes(model, filter) and _passes_costs(model, filter):
                yield model


def _passes(model: LlmModel, filter: ModelFilter) -> bool:
    return (
        (filter.status is None or model.status in filter.status)
        and (filter.model_type is None or model.model_type in filter.model_type)
        and (filter.is_default is None or model.is_default is filter.is_default)
        and (filter.capabilities is None or filter.capabilities <= set(model.capabilities))
        and (
            filter.min_context_window is None
            or (model.context_window is not None and model.context_window >= filter.min_context_window)
        )
    )


def _passes_costs(model: LlmModel, filter: ModelFilter) -> bool:
    cost_input, cost_output = model.cost_input_per_million, model.cost_output_per_million
    most_input, most_output = filter.max_cost_input_per_million, filter.max_cost_output_per_million
    return (
        (filter.has_price is None or (cost_input is not None and cost_output is not None) is filter.has_price)
        and (most_input is None or (cost_input is not None and cost_input <= most_input))
        and (most_output is None or (cost_output is not None and cost_output <= most_output))
    )


def _key(snapshot: Snapshot, model: LlmModel, field: ModelOrderField, descending: bool) -> Key:
    match field:
        case ModelOrderField.PROVIDER:
            return (snapshot.provider_of(model).name, model.model_id, model.id)
        case ModelOrderField.NAME:
            return (model.display_name.casefold(), model.id)
        case ModelOrderField.COST_INPUT:
            return _unknown_last(_scaled(model.cost_input_per_million), model.id, descending)
        case ModelOrderField.COST_OUTPUT:
            return _unknown_last(_scaled(model.cost_output_per_million), model.id, descending)
        case ModelOrderField.CONTEXT_WINDOW:
            return _unknown_last(model.context_window, model.id, descending)
        case ModelOrderField.CREATED_AT:
            return ((model.created_at - _EPOCH) // timedelta(microseconds=1), model.id)
    assert_never(field)


def _unknown_last(value: int | None, id: str, descending: bool) -> Key:
    # A descending sequence is read from its end, so there the unknown stand first.
    return ((value is None) is not descending, 0 if value is None else value, id)


def _scaled(cost: Decimal | None) -> int | None:
    """A cost as a whole number, exactly: keys hold what JSON holds exactly."""
    return None if cost is None else int(cost.scaleb(PRICE_SCALE))
