"""Pages by keyset, and their cursors."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.pagination import MAX_FIRST, Page, Sorted, decode_cursor, encode_cursor, paginate, sort_by
from app.errors import ValidationError

items = st.lists(st.tuples(st.integers(), st.text()), unique=True, max_size=40)


def walk(sequence: Sorted[tuple[int, str]], first: int) -> list[Page[tuple[int, str]]]:
    pages = [paginate(sequence, first)]
    while pages[-1].has_next_page:
        pages.append(paginate(sequence, first, pages[-1].end_cursor))
    return pages


@given(items, st.integers(1, 7), st.booleans())
def test_pages_together_are_the_whole_in_order(values: list[tuple[int, str]], first: int, descending: bool) -> None:
    sequence = sort_by("test", values, lambda item: item, descending=descending)
    pages = walk(sequence, first)
    assert [node for page in pages for node in page.nodes] == sorted(values, reverse=descending)
    assert all(page.total_count == len(values) for page in pages)
    assert [page.has_previous_page for page in pages] == [False] + [True] * (len(pages) - 1)


@given(items.filter(bool), st.data(), st.booleans())
def test_a_cursor_outlives_its_item(values: list[tuple[int, str]], data: st.DataObject, descending: bool) -> None:
    gone = data.draw(st.sampled_from(values))
    cursor = encode_cursor("test", gone)
    rest = [value for value in values if value != gone]
    page = paginate(sort_by("test", rest, lambda item: item, descending=descending), MAX_FIRST, cursor)
    behind = [value for value in rest if (value < gone if descending else value > gone)]
    assert list(page.nodes) == sorted(behind, reverse=descending)


@given(st.text(), st.integers(), st.booleans())
def test_a_cursor_holds_its_key_exactly(text: str, number: int, flag: bool) -> None:
    key = (text, number, flag)
    assert decode_cursor("order", (str, int, bool), encode_cursor("order", key)) == key


@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_no_text_breaks_the_decoder(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decode_cursor("order", (str, int), text)
    assert caught.value.field == "after"


@pytest.mark.parametrize(
    "cursor",
    [
        encode_cursor("another order", ("a", 1)),
        encode_cursor("order", ("a",)),
        encode_cursor("order", ("a", True)),
        encode_cursor("order", (1, "a")),
        base64.urlsafe_b64encode(b"[" * 2_500).decode(),
        "A" * 100_000,
    ],
)
def test_a_cursor_of_something_else_is_refused(cursor: str) -> None:
    with pytest.raises(ValidationError):
        decode_cursor("order", (str, int), cursor)


@pytest.mark.parametrize("first", [-1, 0, MAX_FIRST + 1, 2**63])
def test_first_has_bounds(first: int) -> None:
    with pytest.raises(ValidationError, match="first must be from 1 to 500"):
        paginate(sort_by("test", [1], lambda item: (item,)), first)
