"""Lookups of a snapshot, and what may be used."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.catalog.records import LlmModelStatus, LlmModelType, UsageUnit
from app.catalog.resolution import usable_model
from app.catalog.snapshot import Snapshot
from app.errors import ModelUnavailable, NotFound, ValidationError
from tests.app.catalog.make import TIME, model, price, provider

OLD = model("openai", "old", status=LlmModelStatus.DEPRECATED)
SNAPSHOT = Snapshot(
    1,
    [provider("xai"), provider("openai"), provider("off", is_enabled=False)],
    [
        OLD,
        model("openai", "a"),
        model("openai", "z", is_default=True),
        model("openai", "paused", status=LlmModelStatus.INACTIVE),
        model("openai", "embed", model_type=LlmModelType.EMBEDDING),
        model("xai", "a"),
        model("xai", "grok", is_default=True),
        model("off", "a", is_default=True),
        model("openai", "foreign", workspace_id="other"),
    ],
    [
        price(OLD.id, "2", TIME + timedelta(days=2)),
        price(OLD.id, "1", TIME),
        price(OLD.id, None, TIME + timedelta(days=4)),
    ],
)


def test_a_model_is_found_by_id_and_both_forms_of_reference() -> None:
    row = SNAPSHOT.model("id-xai-grok")
    assert row is not None
    assert SNAPSHOT.model_by_ref("xai:grok") is row
    assert SNAPSHOT.model_by_ref("#/Model/xai/grok") is row
    assert SNAPSHOT.model_by_ref("xai:grok", "other") is None
    assert usable_model(SNAPSHOT, row.id) is usable_model(SNAPSHOT, "xai:grok") is row


def test_alternatives_are_usable_same_provider_first_defaults_first() -> None:
    assert SNAPSHOT.alternatives(OLD) == ("openai:z", "openai:a", "xai:grok", "xai:a")


@pytest.mark.parametrize(
    ("key", "reason"),
    [("openai:old", "deprecated"), ("openai:paused", "inactive"), ("off:a", "provider 'off' is disabled")],
)
def test_what_may_not_be_used_says_why_and_what_instead(key: str, reason: str) -> None:
    with pytest.raises(ModelUnavailable, match=reason) as caught:
        usable_model(SNAPSHOT, key)
    assert "openai:z" in caught.value.alternatives
    assert caught.value.ref == key


@pytest.mark.parametrize("key", ["openai:none", "nobody:a", "no-such-id", "openai:foreign", "id-openai-foreign"])
def test_an_unknown_model_is_not_found(key: str) -> None:
    with pytest.raises(NotFound):
        usable_model(SNAPSHOT, key)


def test_a_broken_reference_is_a_validation_error() -> None:
    with pytest.raises(ValidationError):
        usable_model(SNAPSHOT, "openai:")


def test_a_price_holds_from_its_time_on_until_the_next() -> None:
    def amount(days: float) -> str | None:
        found = SNAPSHOT.price_at(OLD.id, UsageUnit.INPUT_TOKENS, TIME + timedelta(days=days))
        return None if found is None else str(found.price_per_million)

    assert [amount(days) for days in (-0.001, 0, 1.999, 2, 3.999, 4)] == [None, "1", "1", "2", "2", "None"]
    assert SNAPSHOT.price_at(OLD.id, UsageUnit.OUTPUT_TOKENS, TIME) is None
