"""Environment variables in a file's text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.configuration.interpolation import InterpolationError, escape, interpolate

ENVIRONMENT = {"HOST": "example.com", "EMPTY": "", "NESTED": "${HOST}"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://${HOST}/v1", "https://example.com/v1"),
        ("${HOST}${HOST}", "example.comexample.com"),
        ("${MISSING:-fallback}", "fallback"),
        ("${MISSING:-}", ""),
        ("${EMPTY:-fallback}", "fallback"),
        ("${EMPTY}", ""),
        ("${HOST:-fallback}", "example.com"),
        ("${MISSING:-a:-b}", "a:-b"),
        ("$${HOST}", "${HOST}"),
        ("$HOST costs $5", "$HOST costs $5"),
        ("$$", "$$"),
        ("${NESTED}", "${HOST}"),
    ],
)
def test_variables_are_replaced_once(text: str, expected: str) -> None:
    assert interpolate(text, ENVIRONMENT).text == expected


def test_an_unset_variable_is_named() -> None:
    with pytest.raises(InterpolationError, match="MISSING is not set"):
        interpolate("${MISSING}", ENVIRONMENT)


@pytest.mark.parametrize("text", ["${", "${}", "${1ST}", "${HOST", "${HOST-x}", "${a b}", "${${HOST}}"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InterpolationError, match=r"\$\$\{"):
        interpolate(text, ENVIRONMENT)


@given(st.text(st.sampled_from("${}:-AB ")))
def test_escaped_text_comes_back_as_it_was(text: str) -> None:
    assert interpolate(escape(text), {}) == (text, False)
