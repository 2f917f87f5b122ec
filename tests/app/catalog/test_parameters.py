"""Parameter rules: which make sense, and what they allow."""

from __future__ import annotations

from typing import Any

import pytest

from app.catalog.parameters import MAX_RULES, check_value, parse_rules, read_rules
from app.errors import ValidationError


@pytest.mark.parametrize(
    "rule",
    [
        {"name": "temperature"},
        {"name": "temperature", "type": "number", "minimum": 0, "maximum": 0, "default": 0, "required": True},
        {"name": "effort", "type": "string", "options": ["low", "high"], "default": "low"},
        {"name": "stop", "type": "array", "options": [["a"], []]},
        {"name": "user-id", "type": "any", "minimum": 1, "default": "x"},
    ],
)
def test_rules_that_make_sense_are_taken(rule: dict[str, Any]) -> None:
    assert list(parse_rules([rule])) == [rule["name"]]


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ("x", "parameterRules"),
        ({}, "parameterRules"),
        ([{}], "parameterRules"),
        ([{"name": 1}], "parameterRules"),
        ([{"name": "x", "minimum": "1"}], "parameterRules"),
        ([{"name": "x"}] * (MAX_RULES + 1), "parameterRules"),
        ([{"name": "x", "options": ["y" * 70_000]}], "parameterRules"),
        ([{"name": ""}], "parameterRules[0].name"),
        ([{"name": "a b"}], "parameterRules[0].name"),
        ([{"name": "a\0"}], "parameterRules[0].name"),
        ([{"name": "messages"}], "parameterRules[0].name"),
        ([{"name": "x"}, {"name": "x"}], "parameterRules[1].name"),
        ([{"name": "x", "type": "string", "minimum": 1}], "parameterRules[0].minimum"),
        ([{"name": "x", "type": "number", "maximum": float("inf")}], "parameterRules[0].maximum"),
        ([{"name": "x", "minimum": 2, "maximum": 1}], "parameterRules[0].maximum"),
        ([{"name": "x", "options": []}], "parameterRules[0].options"),
        ([{"name": "x", "type": "string", "options": ["a", 1]}], "parameterRules[0].options[1]"),
        ([{"name": "x", "type": "integer", "maximum": 3, "options": [4]}], "parameterRules[0].options[0]"),
        ([{"name": "x", "type": "integer", "default": 1.5}], "parameterRules[0].default"),
        ([{"name": "x", "options": ["a"], "default": "b"}], "parameterRules[0].default"),
    ],
)
def test_rules_that_make_no_sense_are_refused_by_field(rules: Any, field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        parse_rules(rules)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("rule", "value", "is_allowed"),
    [
        ({"type": "number", "minimum": 0, "maximum": 1}, 1, True),
        ({"type": "number", "minimum": 0, "maximum": 1}, 1.0000001, False),
        ({"type": "number"}, True, False),
        ({"type": "number", "minimum": 0}, float("nan"), False),
        ({"type": "integer"}, 1.0, False),
        ({"type": "boolean"}, True, True),
        ({"type": "object"}, [], False),
        ({"options": ["a", 1]}, 1, True),
        ({"options": ["a", 1]}, 2, False),
        ({}, {"anything": [1]}, True),
    ],
)
def test_a_value_is_held_to_its_rule(rule: dict[str, Any], value: Any, is_allowed: bool) -> None:
    parsed = read_rules([{"name": "x", **rule}])["x"]
    if is_allowed:
        check_value("parameters.x", value, parsed)
    else:
        with pytest.raises(ValidationError, match=r"parameters\.x"):
            check_value("parameters.x", value, parsed)
