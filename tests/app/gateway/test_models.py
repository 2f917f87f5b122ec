"""Which model a client means."""

from __future__ import annotations

import pytest

from app.catalog.records import LlmModelStatus
from app.catalog.snapshot import Snapshot
from app.errors import NotFound, ValidationError
from app.gateway.models import find_model
from tests.app.catalog.make import model, provider

SNAPSHOT = Snapshot(
    1,
    [provider("openai"), provider("other")],
    [
        model("openai", "gpt"),
        model("openai", "shared"),
        model("other", "shared"),
        model("other", "org/name:free"),
        model("openai", "old", status=LlmModelStatus.DEPRECATED),
        model("other", "old"),
    ],
)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("openai:gpt", "openai:gpt"),
        ("gpt", "openai:gpt"),
        ("org/name:free", "other:org/name:free"),
        ("other:org/name:free", "other:org/name:free"),
        ("#/Model/openai/gpt", "#/Model/openai/gpt"),
        ("old", "other:old"),
    ],
)
def test_a_model_is_found_by_ref_or_by_a_name_that_one_usable_model_has(name: str, found: str) -> None:
    assert find_model(SNAPSHOT, name, "default") == found


def test_a_name_of_several_models_is_refused_with_their_refs() -> None:
    with pytest.raises(ValidationError, match="openai:shared, other:shared"):
        find_model(SNAPSHOT, "shared", "default")


@pytest.mark.parametrize("name", ["nothing", "nobody:gpt", ""])
def test_an_unknown_name_is_not_found(name: str) -> None:
    with pytest.raises(NotFound):
        find_model(SNAPSHOT, name, "default")


def test_models_of_another_workspace_are_not_found() -> None:
    with pytest.raises(NotFound):
        find_model(SNAPSHOT, "gpt", "another")
