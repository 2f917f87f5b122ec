"""Ranked search."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.records import LlmModelStatus
from app.catalog.search import search_page
from app.catalog.snapshot import Snapshot
from app.errors import ValidationError
from tests.app.catalog.make import model, provider

SNAPSHOT = Snapshot(
    7,
    [provider("openai"), provider("anthropic"), provider("tenant", workspace_id="other")],
    [
        model("openai", "gpt-4o", display_name="GPT-4o", description="An omni model, good at vision"),
        model("openai", "gpt-4o-mini", display_name="GPT-4o Mini"),
        model("openai", "chatgpt-4o-latest", status=LlmModelStatus.DEPRECATED),
        model("openai", "gpt-3.5", description="older than gpt-4o"),
        model("anthropic", "claude-opus-4", display_name="Claude Opus 4", description="Vision and STRASSE"),
        model("tenant", "gpt-4o", workspace_id="other"),
    ],
)


def found(query: str) -> list[str]:
    return [SNAPSHOT.ref(node) for node in search_page(SNAPSHOT, query).nodes]


def test_exact_before_prefix_before_substring_before_description() -> None:
    assert found("gpt-4o") == ["openai:gpt-4o", "openai:gpt-4o-mini", "openai:chatgpt-4o-latest", "openai:gpt-3.5"]


def test_a_reference_finds_its_model_first() -> None:
    assert found("openai:gpt-4o")[0] == "openai:gpt-4o"


def test_all_words_must_match_in_any_order_and_case() -> None:
    assert found("MINI openai") == ["openai:gpt-4o-mini"]
    assert found("mini anthropic") == []


def test_the_description_is_searched_and_folds_case_as_unicode_does() -> None:
    assert found("vision") == ["anthropic:claude-opus-4", "openai:gpt-4o"]
    assert found("straße") == ["anthropic:claude-opus-4"]


def test_models_of_another_workspace_are_not_found() -> None:
    assert [node.id for node in search_page(SNAPSHOT, "gpt-4o", workspace_id="other").nodes] == ["id-tenant-gpt-4o"]


@pytest.mark.parametrize("query", ["", "  \t", "x" * 201])
def test_a_query_has_a_word_and_an_end(query: str) -> None:
    with pytest.raises(ValidationError) as caught:
        search_page(SNAPSHOT, query)
    assert caught.value.field == "query"


@given(st.text(min_size=1, max_size=200).filter(lambda text: text.strip()))
def test_any_text_can_be_searched_for(query: str) -> None:
    search_page(SNAPSHOT, query)


@given(st.sampled_from(SNAPSHOT.models), st.data())
def test_every_part_of_a_reference_finds_its_model(sought: object, data: st.DataObject) -> None:
    row = SNAPSHOT.model(getattr(sought, "id"))  # noqa: B009 - the strategy's type is not known to mypy
    assert row is not None
    ref = SNAPSHOT.ref(row)
    start = data.draw(st.integers(0, len(ref) - 1))
    end = data.draw(st.integers(start + 1, len(ref)))
    assert row in search_page(SNAPSHOT, ref[start:end], workspace_id=row.workspace_id).nodes
