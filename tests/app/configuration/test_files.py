"""Files that include files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.configuration.files import load
from app.errors import ConfigurationError

Writes = Callable[[str, str], Path]


def test_included_files_are_merged_and_the_including_file_holds(write: Writes) -> None:
    write(
        "providers/acme.yaml",
        "providers:\n- name: acme\n  displayName: Acme\n  limits: {requestsPerMinute: 5, maxParallelRequests: 2}\n"
        "  models:\n  - {modelId: a, displayName: A, prices: {inputTokens: 1, outputTokens: 2}}\n",
    )
    write("providers/other.yaml", "providers:\n- {name: other, displayName: Other}\n")
    write("settings.yaml", "settings: {a: {x: 1}, b: 1}\n")
    top = write(
        "tollgate.yaml",
        "include: [settings.yaml, providers/*.yaml]\n"
        "providers:\n- name: acme\n  limits: {requestsPerMinute: 9}\n"
        "  models:\n  - {modelId: a, prices: {outputTokens: 3}}\n  - {modelId: b}\n"
        "settings: {a: {y: 2}}\n",
    )
    document = load(top)
    assert document.providers is not None
    assert set(document.providers) == {"acme", "other"}
    acme = document.providers["acme"]
    assert {column: given.value for column, given in acme.values.items()} == {
        "display_name": "Acme",
        "requests_per_minute": 9,
        "max_parallel_requests": 2,
    }
    assert acme.models is not None
    assert set(acme.models) == {"a", "b"}
    assert [str(entries[0].price) for entries in acme.models["a"].prices.values()] == ["1", "3"]
    assert document.settings is not None
    assert {key: given.value for key, given in document.settings.items()} == {"a": {"y": 2}, "b": 1}
    # Each value knows the file that it is from.
    assert acme.values["display_name"].position.file.endswith("acme.yaml")
    assert acme.values["requests_per_minute"].position.file.endswith("tollgate.yaml")


def test_later_includes_hold_over_earlier_ones(write: Writes) -> None:
    write("a.yaml", "settings: {x: a, y: a}\n")
    write("b.yaml", "settings: {x: b}\n")
    document = load(write("tollgate.yaml", "include: [a.yaml, b.yaml]\n"))
    assert document.settings is not None
    assert {key: given.value for key, given in document.settings.items()} == {"x": "b", "y": "a"}


def test_includes_are_relative_to_their_file_and_may_nest(write: Writes) -> None:
    write("one/two/c.yaml", "settings: {c: 1}\n")
    write("one/b.yaml", "include: two/c.yaml\nsettings: {b: 1}\n")
    document = load(write("tollgate.yaml", "include: one/b.yaml\n"))
    assert document.settings is not None
    assert set(document.settings) == {"b", "c"}


def test_a_file_may_be_included_twice(write: Writes) -> None:
    write("base.yaml", "settings: {x: 1}\n")
    write("a.yaml", "include: base.yaml\n")
    write("b.yaml", "include: base.yaml\n")
    document = load(write("tollgate.yaml", "include: [a.yaml, b.yaml]\n"))
    assert document.settings is not None


def test_a_circle_is_refused(write: Writes) -> None:
    write("b.yaml", "\ninclude: a.yaml\n")
    with pytest.raises(ConfigurationError, match=r"b\.yaml:2: include goes round in a circle: .*a\.yaml -> .*b\.yaml"):
        load(write("a.yaml", "include: b.yaml\n"))
    with pytest.raises(ConfigurationError, match=r"self\.yaml:1: include goes round in a circle"):
        load(write("self.yaml", "include: ./self.yaml\n"))


def test_a_missing_file_and_a_pattern_without_files_are_refused(write: Writes) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(write("tollgate.yaml", "include:\n- gone.yaml\n- gone/*.yaml\n- {}\n"))
    gone, pattern, mapping = refused.value.message.splitlines()
    assert "tollgate.yaml:2: include" in gone
    assert "cannot be read: no such file or directory" in gone
    assert pattern.endswith("tollgate.yaml:3: include 'gone/*.yaml' matches no file")
    assert mapping.endswith("tollgate.yaml:4: include must be a list of files, relative to this one")


def test_the_first_file_must_be_there_and_be_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: no such file"):
        load(tmp_path / "gone.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"settings: \xff")
    with pytest.raises(ConfigurationError, match="no UTF-8 at byte 10"):
        load(tmp_path / "binary.yaml")


def test_what_is_wrong_in_an_included_file_is_said_with_that_file(write: Writes) -> None:
    write("bad.yaml", "\nsettings: {A: 1}\n")
    with pytest.raises(ConfigurationError, match=r"bad\.yaml:2: settings\.A must be"):
        load(write("tollgate.yaml", "include: bad.yaml\n"))
