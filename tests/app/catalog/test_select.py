"""Filters and orders of models."""

from __future__ import annotations

from decimal import Decimal

import pytest

from app.catalog.records import LlmModelStatus, LlmModelType
from app.catalog.select import ModelFilter, ModelOrder, ModelOrderField, OrderDirection, models_page, select_models
from app.catalog.snapshot import Snapshot
from tests.app.catalog.make import model, provider

SNAPSHOT = Snapshot(
    3,
    [provider("openai"), provider("mistral", is_enabled=False), provider("tenant", workspace_id="other")],
    [
        model("openai", "b", display_name="Zeta", cost_input_per_million=Decimal("0.15"), is_default=True),
        model("openai", "a", display_name="alpha", cost_input_per_million=Decimal("10"), context_window=128_000),
        model("openai", "c", display_name="Beta", capabilities=("vision", "tools"), status=LlmModelStatus.DEPRECATED),
        model(
            "mistral",
            "embed",
            model_type=LlmModelType.EMBEDDING,
            cost_input_per_million=Decimal("0.1000000001"),
            cost_output_per_million=Decimal(0),
            context_window=8_000,
        ),
        model("tenant", "a", workspace_id="other"),
    ],
)


def ids(filter: ModelFilter) -> list[str]:
    return [row.model_id for row in models_page(SNAPSHOT, filter).nodes]


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (ModelFilter(), ["embed", "a", "b", "c"]),
        (ModelFilter(provider="openai"), ["a", "b", "c"]),
        (ModelFilter(provider="id-mistral"), ["embed"]),
        (ModelFilter(provider="nobody"), []),
        (ModelFilter(is_provider_enabled=False), ["embed"]),
        (ModelFilter(status=frozenset({LlmModelStatus.DEPRECATED})), ["c"]),
        (ModelFilter(model_type=frozenset({LlmModelType.EMBEDDING})), ["embed"]),
        (ModelFilter(is_default=True), ["b"]),
        (ModelFilter(capabilities=frozenset({"tools", "vision"})), ["c"]),
        (ModelFilter(capabilities=frozenset({"tools", "audio"})), []),
        (ModelFilter(text="BETA openai"), ["c"]),
        (ModelFilter(min_context_window=8_000), ["embed", "a"]),
        (ModelFilter(min_context_window=8_001), ["a"]),
        (ModelFilter(has_price=True), ["embed"]),
        (ModelFilter(has_price=False), ["a", "b", "c"]),
        (ModelFilter(max_cost_input_per_million=Decimal("0.1")), []),
        (ModelFilter(max_cost_input_per_million=Decimal("0.1000000001")), ["embed"]),
        (ModelFilter(max_cost_output_per_million=Decimal(0)), ["embed"]),
    ],
)
def test_each_filter_passes_what_meets_it(filter: ModelFilter, expected: list[str]) -> None:
    assert ids(filter) == expected


@pytest.mark.parametrize(
    ("field", "ascending", "descending"),
    [
        (ModelOrderField.PROVIDER, ["embed", "a", "b", "c"], ["c", "b", "a", "embed"]),
        (ModelOrderField.NAME, ["a", "c", "embed", "b"], ["b", "embed", "c", "a"]),
        (ModelOrderField.COST_INPUT, ["embed", "b", "a", "c"], ["a", "b", "embed", "c"]),
        (ModelOrderField.COST_OUTPUT, ["embed", "a", "b", "c"], ["embed", "c", "b", "a"]),
        (ModelOrderField.CONTEXT_WINDOW, ["embed", "a", "b", "c"], ["a", "embed", "c", "b"]),
        (ModelOrderField.CREATED_AT, ["embed", "a", "b", "c"], ["c", "b", "a", "embed"]),
    ],
)
def test_orders_put_the_unknown_last_in_both_directions(
    field: ModelOrderField, ascending: list[str], descending: list[str]
) -> None:
    for direction, expected in ((OrderDirection.ASC, ascending), (OrderDirection.DESC, descending)):
        order = ModelOrder(field, direction)
        walked: list[str] = []
        after = None
        for _ in expected:
            page = models_page(SNAPSHOT, order=order, first=1, after=after)
            walked += [row.model_id for row in page.nodes]
            after = page.end_cursor
        assert walked == expected
        assert not page.has_next_page


def test_a_selection_is_made_once_per_snapshot() -> None:
    assert select_models(SNAPSHOT, ModelFilter(provider="openai")) is select_models(
        SNAPSHOT, ModelFilter(provider="openai")
    )


def test_another_workspace_sees_its_own_models_only() -> None:
    assert [row.id for row in models_page(SNAPSHOT, workspace_id="other").nodes] == ["id-tenant-a"]
