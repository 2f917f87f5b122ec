"""The seed's decision, as a function of data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from seed import plan
from seed.plan import SCHEMA_DEFAULTS, Catalog, Identity, Item, Kind, Outcome, Plan, Record, Source, Values, decide

PROVIDER = Identity(Kind.PROVIDER, "default/acme")
FIRST = Identity(Kind.MODEL, "default/acme:first")
SECOND = Identity(Kind.MODEL, "default/acme:second")
CACHE_READ = Identity(Kind.PRICE, "default/acme:first#CACHE_READ_TOKENS")


def provider(**values: Any) -> Item:
    return Item(PROVIDER, {"display_name": "Acme", **values})


def model(identity: Identity = FIRST, **values: Any) -> Item:
    return Item(identity, {"display_name": "Model", **values}, PROVIDER)


def cache_read(price: str | None) -> Item:
    return Item(CACHE_READ, {"price_per_million": price}, FIRST)


def defaults_of(rows: Mapping[Identity, Values]) -> dict[Identity, Identity]:
    chosen = [identity for identity, row in rows.items() if row.get("is_default")]
    return {PROVIDER: chosen[0]} if chosen else {}


def after(done: Plan, catalog: Catalog) -> Catalog:
    """The catalog as it is once the plan is carried out."""
    rows = {identity: dict(values) for identity, values in catalog.rows.items()}
    records = dict(catalog.records)
    for action in done.actions:
        identity = action.item.identity
        if action.record is not None:
            records[identity] = action.record
            rows[identity] = {**SCHEMA_DEFAULTS[identity.kind], **rows.get(identity, {}), **action.written}
    return Catalog(rows, records, defaults_of(rows))


def seeded(*items: Item, source: Source = Source.REFERENCE) -> Catalog:
    return after(decide(source, items, Catalog()), Catalog())


def edited(catalog: Catalog, identity: Identity, **values: Any) -> Catalog:
    rows = {**catalog.rows, identity: {**catalog.rows[identity], **values}}
    return Catalog(rows, catalog.records, defaults_of(rows))


def without(catalog: Catalog, *identities: Identity) -> Catalog:
    rows = {identity: values for identity, values in catalog.rows.items() if identity not in identities}
    return Catalog(rows, catalog.records, defaults_of(rows))


def outcomes(items: list[Item], catalog: Catalog, source: Source = Source.REFERENCE) -> dict[str, Outcome]:
    return {action.item.identity.key: action.outcome for action in decide(source, items, catalog).actions}


def test_a_new_value_of_the_seed_replaces_what_the_seed_wrote() -> None:
    catalog = seeded(provider(requests_per_minute=60))
    (action,) = decide(Source.REFERENCE, [provider(requests_per_minute=90)], catalog).actions
    assert action.outcome is Outcome.UPDATE
    assert action.written == {"requests_per_minute": 90}


def test_an_operators_edit_is_kept_and_other_fields_are_still_upgraded() -> None:
    catalog = edited(seeded(provider(requests_per_minute=60, base_url="https://a")), PROVIDER, requests_per_minute=5)
    (action,) = decide(Source.REFERENCE, [provider(requests_per_minute=90, base_url="https://b")], catalog).actions
    assert action.outcome is Outcome.UPDATE
    assert action.written == {"base_url": "https://b"}
    assert [(d.field, d.kept) for d in action.differences if d.kept] == [("requests_per_minute", plan.EDITED)]
    assert action.record is not None
    assert action.record.values["requests_per_minute"] == 60


def test_a_deleted_row_stays_deleted_and_so_does_what_belonged_to_it() -> None:
    items = [provider(), model()]
    catalog = without(seeded(*items), PROVIDER, FIRST)
    newcomer = model(SECOND)
    assert outcomes([*items, newcomer], catalog) == dict.fromkeys([PROVIDER.key, FIRST.key, SECOND.key], Outcome.KEPT)


def test_a_row_without_a_record_is_the_operators_and_gets_no_prices() -> None:
    catalog = Catalog({PROVIDER: provider().values, FIRST: {"display_name": "Mine"}})
    assert outcomes([model(), cache_read("1")], catalog) == {FIRST.key: Outcome.KEPT, CACHE_READ.key: Outcome.KEPT}


def test_an_operators_default_is_kept_when_the_seed_has_another() -> None:
    catalog = edited(seeded(provider(), model(SECOND, is_default=False)), SECOND, is_default=True)
    (created,) = decide(Source.REFERENCE, [model(FIRST, is_default=True)], catalog).actions
    assert created.outcome is Outcome.CREATE
    assert "is_default" not in created.written
    assert created.differences[-1].kept == plan.OTHER_DEFAULT


def test_the_seeds_default_moves_when_no_operator_chose() -> None:
    catalog = seeded(provider(), model(FIRST, is_default=True), model(SECOND, is_default=False))
    moved = [model(SECOND, is_default=True), model(FIRST, is_default=False)]
    done = decide(Source.REFERENCE, moved, catalog)
    assert [(a.item.identity, a.written) for a in done.actions] == [
        (FIRST, {"is_default": False}),
        (SECOND, {"is_default": True}),
    ]


def test_a_default_is_not_deprecated_and_a_deprecated_model_not_made_default() -> None:
    catalog = seeded(provider(), model(FIRST, is_default=True, status="ACTIVE"))
    (kept,) = decide(Source.GENAI_PRICES, [model(FIRST, status="DEPRECATED")], catalog).actions
    assert (kept.outcome, kept.reason) == (Outcome.KEPT, plan.DEFAULT_NOT_DEPRECATED)
    catalog = seeded(provider(), model(FIRST, status="DEPRECATED"), source=Source.GENAI_PRICES)
    (kept,) = decide(Source.REFERENCE, [model(FIRST, is_default=True)], catalog).actions
    assert (kept.outcome, kept.reason) == (Outcome.KEPT, plan.DEPRECATED_NOT_DEFAULT)


def test_either_order_of_the_two_sources_gives_the_same_catalog() -> None:
    reference = [provider(requests_per_minute=5), model(cost_input_per_million="1", status="ACTIVE", is_default=True)]
    current = [
        Item(PROVIDER, {"display_name": "ACME Inc."}),
        model(display_name="model", cost_input_per_million="2", status="ACTIVE"),
    ]
    results = []
    orders = [(reference, current), (current, reference)]
    for order in orders:
        catalog = Catalog()
        for items in (*order, *order):
            source = Source.REFERENCE if items is reference else Source.GENAI_PRICES
            catalog = after(decide(source, items, catalog), catalog)
        results.append(catalog.rows)
    assert results[0] == results[1]
    assert results[0][FIRST]["cost_input_per_million"] == "2"
    assert results[0][FIRST]["display_name"] == "Model"
    assert results[0][PROVIDER]["requests_per_minute"] == 5


def test_a_cache_price_that_the_source_drops_becomes_unknown() -> None:
    items = [provider(), model(), cache_read("0.5")]
    catalog = seeded(*items, source=Source.GENAI_PRICES)
    done = decide(Source.GENAI_PRICES, items[:2], catalog)
    assert [(a.item.identity, a.written) for a in done.actions if a.outcome is Outcome.UPDATE] == [
        (CACHE_READ, {"price_per_million": None})
    ]
    assert done.count(Kind.PRICE, Outcome.UPDATE) == 1
    again = decide(Source.GENAI_PRICES, items[:2], after(done, catalog))
    assert again.total(Outcome.UPDATE) == 0


_models = st.fixed_dictionaries(
    {
        "display_name": st.sampled_from(["a", "b"]),
        "cost_input_per_million": st.sampled_from([None, "0", "1"]),
        "status": st.sampled_from(["ACTIVE", "DEPRECATED"]),
        "is_default": st.booleans(),
    }
)


@st.composite
def _states(draw: st.DrawFn) -> Catalog:
    rows: dict[Identity, Any] = {}
    records: dict[Identity, Record] = {}
    for identity in (FIRST, SECOND):
        row = draw(st.none() | _models)
        if row is not None:
            taken = any(other["is_default"] for other in rows.values())
            row = {**row, "is_default": row["is_default"] and not taken and row["status"] == "ACTIVE"}
            rows[identity] = {**SCHEMA_DEFAULTS[Kind.MODEL], **row}
        recorded = draw(st.none() | _models)
        if recorded is not None:
            records[identity] = Record(draw(st.sets(st.sampled_from(Source), min_size=1).map(frozenset)), recorded)
    return Catalog({PROVIDER: {"display_name": "Acme"}, **rows}, records, defaults_of(rows))


@given(_states(), _models, _models, st.sampled_from(Source))
def test_any_plan_writes_only_what_no_operator_wants_otherwise_and_breaks_no_rule(
    catalog: Catalog, first: dict[str, Any], second: dict[str, Any], source: Source
) -> None:
    done = decide(source, [model(FIRST, **first), model(SECOND, **second)], catalog)
    for action in done.actions:
        identity = action.item.identity
        row, record = catalog.rows.get(identity), catalog.records.get(identity)
        if (row is None) != (record is None):
            assert action.record is None
        if row is not None and record is not None:
            assert all(row[name] == record.values[name] for name in action.written)
    result = after(done, catalog)
    models = [row for identity, row in result.rows.items() if identity.kind is Kind.MODEL]
    assert sum(row["is_default"] for row in models) <= 1
    assert not any(row["is_default"] and row["status"] == "DEPRECATED" for row in models)
