"""The JSON Schema that editors use."""

from __future__ import annotations

import jsonschema_rs
import pytest
import yaml

from app.configuration.schema import PUBLISHED, build_schema, print_schema
from tests.app.configuration.conftest import Yaml12
from tests.app.configuration.test_document import FULL
from tests.app.configuration.test_service import ACME, DATED

VALIDATOR = jsonschema_rs.validator_for(build_schema())


def test_the_published_schema_is_fresh() -> None:
    assert PUBLISHED.read_text() == print_schema(), "run python -m app.configuration.schema --write"


def test_it_is_a_schema() -> None:
    jsonschema_rs.meta.validate(build_schema())


@pytest.mark.parametrize(
    "text", [ACME, DATED, FULL, "include: [a.yaml]", "providers: [{name: a, isEnabled: '${ON:-true}'}]"]
)
def test_files_that_can_be_applied_are_valid(text: str) -> None:
    assert [str(error) for error in VALIDATOR.iter_errors(yaml.load(text, Yaml12))] == []


@pytest.mark.parametrize(
    "text",
    [
        "provider: []",
        "providers: [{displayName: A}]",
        "providers: [{name: A B}]",
        "providers: [{name: a, limits: {requestsPerMinute: 0}}]",
        "providers: [{name: a, limits: {requestPerMinute: 1}}]",
        "providers: [{name: a, models: [{modelId: m, status: RETIRED}]}]",
        "providers: [{name: a, models: [{modelId: m, prices: {inputTokens: -1}}]}]",
        "providers: [{name: a, models: [{modelId: m, prices: {input: 1}}]}]",
        "settings: {Upper: 1}",
    ],
)
def test_mistakes_are_found_in_the_editor(text: str) -> None:
    assert list(VALIDATOR.iter_errors(yaml.load(text, Yaml12)))
