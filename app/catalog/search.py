"""Ranked search over a snapshot by words in a model's reference, display name and description."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from app.catalog.pagination import Page, Sorted, paginate, sort_by
from app.catalog.records import DEFAULT_WORKSPACE, LlmModel
from app.catalog.snapshot import Snapshot
from app.errors import ValidationError

MAX_QUERY: Final = 200
_WORD: Final = re.compile(r"[^\W_]+")


class Rank(IntEnum):
    """How well a model answers a query, best first."""

    EXACT = 0
    """The query is its model id, reference or display name."""
    PREFIX = 1
    """Its model id, reference or display name begins with the query."""
    WORD_PREFIX = 2
    """Each word of the query begins a word of its reference or display name."""
    SUBSTRING = 3
    """Each word occurs in its reference or display name."""
    DESCRIPTION = 4
    """Some word occurs only in its description."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """A model's searchable text, case folded."""

    model: LlmModel
    titles: tuple[str, str, str]
    """Model id, reference, display name."""
    words: tuple[str, ...]
    """Of the titles."""
    description: str


def search_page(
    snapshot: Snapshot,
    query: str,
    first: int = 20,
    after: str | None = None,
    workspace_id: str = DEFAULT_WORKSPACE,
) -> Page[LlmModel]:
    """The models that hold all words of `query`, best first. Raises ValidationError."""
    return paginate(search_models(snapshot, query, workspace_id), first, after)


def search_models(snapshot: Snapshot, query: str, workspace_id: str = DEFAULT_WORKSPACE) -> Sorted[LlmModel]:
    folded = _fold(query)
    return snapshot.derived(("search", workspace_id, folded), lambda: _search(snapshot, folded, workspace_id))


def matching_ids(snapshot: Snapshot, text: str, field: str = "filter.text") -> frozenset[str]:
    """Row ids of the models that hold all words of `text`."""
    folded = _fold(text, field)
    words = folded.split()
    return frozenset(entry.model.id for entry in _index(snapshot) if rank(entry, folded, words) is not None)


def rank(entry: Indexed, query: str, words: Sequence[str]) -> Rank | None:
    """None where a word of the (case folded) query occurs nowhere."""
    if query in entry.titles:
        return Rank.EXACT
    if any(title.startswith(query) for title in entry.titles):
        return Rank.PREFIX
    if all(any(title_word.startswith(word) for title_word in entry.words) for word in words):
        return Rank.WORD_PREFIX
    missing = [word for word in words if not any(word in title for title in entry.titles)]
    if not missing:
        return Rank.SUBSTRING
    return Rank.DESCRIPTION if all(word in entry.description for word in missing) else None


def _search(snapshot: Snapshot, query: str, workspace_id: str) -> Sorted[LlmModel]:
    words = query.split()
    ranks = {
        entry.model.id: (found, entry.model)
        for entry in _index(snapshot)
        if entry.model.workspace_id == workspace_id and (found := rank(entry, query, words)) is not None
    }
    return sort_by(
        "search",
        (model for _, model in ranks.values()),
        lambda model: (
            int(ranks[model.id][0]),
            not snapshot.is_usable(model),
            snapshot.provider_of(model).name,
            model.model_id,
            model.id,
        ),
    )


def _index(snapshot: Snapshot) -> tuple[Indexed, ...]:
    return snapshot.derived("search index", lambda: tuple(_indexed(snapshot, model) for model in snapshot.models))


def _indexed(snapshot: Snapshot, model: LlmModel) -> Indexed:
    titles = (model.model_id.casefold(), snapshot.ref(model).casefold(), model.display_name.casefold())
    words = tuple(dict.fromkeys(word for title in titles for word in _WORD.findall(title)))
    return Indexed(model, titles, words, (model.description or "").casefold())


def _fold(query: str, field: str = "query") -> str:
    folded = " ".join(query.casefold().split())
    if not folded or len(query) > MAX_QUERY:
        raise ValidationError(field, query, f"at least one word, and at most {MAX_QUERY} characters")
    return folded
