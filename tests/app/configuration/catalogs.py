"""Arbitrary catalogs, such as the API lets people make."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from app.catalog.records import (
    LlmModel,
    LlmModelStatus,
    LlmModelType,
    LlmProvider,
    ModelPrice,
    SystemSetting,
    UsageUnit,
)
from app.catalog.snapshot import Snapshot

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}", fullmatch=True)
MODEL_IDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12)
AWKWARD = (
    st.sampled_from(
        ["no", "null", "~", "1e3", "0.10", "012", "0x1F", "true", "1:30", "2026-01-01", ".inf", "=", "<<", "'", '"']
    )
    | st.sampled_from(
        ["- x", "a: b", "# c", "!tag", "&a", "*a", "%x", "@x", "`x`", "{", "[", "]", "a\tb", "x\n\ny", "x\u2028y"]
    )
    | st.sampled_from(["${HOME}", "$${", "x ${A:-b}"])
)
TEXT = AWKWARD | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[chr(n) for n in (*range(9), *range(11, 32), 127)]),
    min_size=1,
    max_size=40,
).map(str.strip).filter(bool)
WORDS = st.from_regex(r"[a-z][a-z0-9_-]{0,5}", fullmatch=True)
COUNTS = st.integers(1, 2**31 - 1)
PRICES = st.none() | st.decimals(0, 10**10 - 1, places=10, allow_nan=False).map(lambda value: value.copy_abs())
TIMES = st.integers(-(10**12), 10**12).map(lambda microseconds: NOW + timedelta(microseconds=microseconds))
ANY_TEXT = AWKWARD | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def catalogs(draw: st.DrawFn) -> Snapshot:
    providers, models, prices = [], [], []
    for name in draw(st.lists(NAMES, unique=True, max_size=3)):
        provider = _provider(draw, name)
        providers.append(provider)
        default = draw(st.integers(0, 3))
        for index, model_id in enumerate(draw(st.lists(MODEL_IDS, unique=True, max_size=3))):
            model = _model(draw, provider, model_id, is_default=index == default)
            models.append(model)
            prices += _prices(draw, model)
    settings = [
        SystemSetting(id=key, key=key, value=value, updated_at=NOW)
        for key, value in draw(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True), VALUES)).items()
    ]
    return Snapshot(1, providers, models, prices, settings)


def _provider(draw: st.DrawFn, name: str) -> LlmProvider:
    return LlmProvider(
        id=f"id {name}",
        workspace_id="default",
        name=name,
        display_name=draw(TEXT),
        adapter=draw(st.sampled_from(["openai", "anthropic", "google"])),
        base_url=draw(
            st.none() | st.sampled_from(["https://a.example/v1", "http://[::1]:8000", "https://a.example/$x"])
        ),
        max_parallel_requests=draw(COUNTS),
        requests_per_minute=draw(COUNTS),
        tokens_per_minute=draw(st.none() | COUNTS),
        is_enabled=draw(st.booleans()),
        created_at=NOW,
        updated_at=NOW,
    )


def _model(draw: st.DrawFn, provider: LlmProvider, model_id: str, *, is_default: bool) -> LlmModel:
    statuses = [LlmModelStatus.ACTIVE, *([] if is_default else [LlmModelStatus.INACTIVE, LlmModelStatus.DEPRECATED])]
    rules = st.none() | st.lists(
        st.fixed_dictionaries({"name": WORDS.map("p_{}".format), "type": st.just("any"), "default": VALUES}),
        max_size=2,
        unique_by=lambda rule: str(rule["name"]),
    )
    seconds = st.none() | st.floats(0.001, 86_400)
    return LlmModel(
        id=f"id {provider.name} {model_id}",
        workspace_id="default",
        provider_id=provider.id,
        model_id=model_id,
        display_name=draw(TEXT),
        description=draw(st.none() | TEXT),
        model_type=draw(st.sampled_from(LlmModelType)),
        capabilities=tuple(
            draw(st.lists(st.from_regex(r"[a-z][a-z0-9_-]{0,5}", fullmatch=True), unique=True, max_size=3))
        ),
        context_window=draw(st.none() | COUNTS),
        max_output_tokens=draw(st.none() | COUNTS),
        cost_input_per_million=draw(PRICES),
        cost_output_per_million=draw(PRICES),
        status=draw(st.sampled_from(statuses)),
        is_default=is_default,
        parameter_rules=draw(rules),
        allows_unknown_parameters=draw(st.booleans()),
        connect_timeout_seconds=draw(seconds),
        read_timeout_seconds=draw(seconds),
        total_timeout_seconds=draw(seconds),
        created_at=NOW,
        updated_at=NOW,
    )


def _prices(draw: st.DrawFn, model: LlmModel) -> list[ModelPrice]:
    """The list prices as the trigger appends them, and any others, also with later dates."""
    listed: list[tuple[UsageUnit, Decimal | None, datetime]] = [
        (UsageUnit.INPUT_TOKENS, model.cost_input_per_million, NOW - timedelta(days=30)),
        (UsageUnit.OUTPUT_TOKENS, model.cost_output_per_million, NOW - timedelta(days=30)),
    ]
    more: list[Any] = draw(st.lists(st.tuples(st.sampled_from(UsageUnit), PRICES, TIMES), max_size=4))
    unique = {(unit, time): price for unit, price, time in [*more, *listed]}
    return [
        ModelPrice(
            id=f"{model.id} {unit} {time}",
            model_id=model.id,
            unit=unit,
            price_per_million=price,
            currency="USD",
            effective_at=time,
            created_at=NOW,
        )
        for (unit, time), price in unique.items()
    ]
