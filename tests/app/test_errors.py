"""The drawn tree of errors is the tree that the code has."""

from __future__ import annotations

import re
from collections.abc import Iterator

from app import errors
from app.errors import ModelUnavailable, NotFound, TollgateError, ValidationError


def drawn() -> list[tuple[int, str]]:
    """(depth, name) of each line of the picture."""
    assert errors.__doc__ is not None
    lines = errors.__doc__.splitlines()
    found = (re.match(r"^([│ ]*(?:[├└]── )?)([A-Z]\w+)(?:  |$)", line) for line in lines)
    return [(len(match[1]) // 4, match[2]) for match in found if match is not None]


def coded(kind: type[TollgateError] = TollgateError, depth: int = 0) -> Iterator[tuple[int, str]]:
    yield depth, kind.__name__
    for child in kind.__subclasses__():
        if child.__module__ == "app.errors":
            yield from coded(child, depth + 1)


def test_the_drawn_tree_is_the_class_tree_in_the_same_order() -> None:
    assert drawn() == list(coded())


def test_every_error_of_the_program_is_in_the_tree() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert defined == {name for _, name in coded()}


def test_each_code_is_unique() -> None:
    codes = [getattr(errors, name).code for _, name in coded()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[A-Z][A-Z_]+", code) for code in codes)


def test_an_error_names_field_value_and_bound() -> None:
    error = ValidationError("priority", 7, "at most 5")
    assert str(error) == error.message == "priority must be at most 5, not 7"
    assert error.path == ("priority",)


def test_a_long_value_is_shown_cut() -> None:
    assert len(ValidationError("input", "x" * 10_000, "short").message) < 200


def test_an_unavailable_model_names_its_alternatives() -> None:
    error = ModelUnavailable("openai:o1", "it is deprecated", ["openai:o3-mini"])
    assert error.alternatives == ("openai:o3-mini",)
    assert "openai:o3-mini" in error.message
    assert NotFound("LlmModel", "x").message == "no LlmModel 'x'"
