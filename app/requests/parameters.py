"""The parameters of a request, checked by its model's rules before a call, with defaults filled in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from app.catalog.parameters import RESERVED, ParameterRule, check_value, read_rules
from app.db.rows import LlmModel
from app.errors import ValidationError

_MAX_OUTPUT_TOKENS: Final = 10_000_000


STANDARD_RULES: Final = {
    rule.name: rule
    for rule in (
        ParameterRule("temperature", "number", 0, 2),
        ParameterRule("top_p", "number", 0, 1),
        ParameterRule("presence_penalty", "number", -2, 2),
        ParameterRule("frequency_penalty", "number", -2, 2),
        ParameterRule("n", "integer", 1, 128),
        ParameterRule("seed", "integer", -(2**63), 2**63 - 1),
        ParameterRule("max_tokens", "integer", 1, _MAX_OUTPUT_TOKENS),
    )
}
"""What holds where a model has no rules of its own. Other names are the protocol's to know."""


def check_parameters(parameters: Mapping[str, Any], model: LlmModel) -> dict[str, Any]:
    """The parameters with defaults filled in, `max_completion_tokens` as max_tokens. Raises ValidationError."""
    if not isinstance(parameters, dict):
        raise ValidationError("parameters", parameters, "an object")
    rules = STANDARD_RULES if model.parameter_rules is None else read_rules(model.parameter_rules)
    checked: dict[str, Any] = {}
    for name, value in parameters.items():
        if name in RESERVED:
            raise ValidationError(f"parameters.{name}", value, "left out: it is set by the request itself")
        if value is None:
            continue
        canonical = "max_tokens" if name in ("max_completion_tokens", "max_output_tokens") else name
        if canonical in checked:
            raise ValidationError(f"parameters.{name}", value, "given once: it is another name of max_tokens")
        rule = rules.get(canonical)
        if rule is not None:
            check_value(f"parameters.{name}", value, rule)
        elif model.parameter_rules is not None and not model.allows_unknown_parameters and canonical != "max_tokens":
            known = ", ".join(sorted(rules)) or "none"
            raise ValidationError(f"parameters.{name}", value, f"left out: the model takes {known}")
        checked[canonical] = value
    if rules is not STANDARD_RULES:  # which neither require nor fill in anything
        _fill_in(checked, rules.values())
    maximum = model.max_output_tokens
    if maximum is not None and checked.get("max_tokens", 0) > maximum:
        raise ValidationError("parameters.max_tokens", checked["max_tokens"], f"at most {maximum}, the model's maximum")
    return checked


def _fill_in(checked: dict[str, Any], rules: Iterable[ParameterRule]) -> None:
    for rule in rules:
        if rule.name not in checked and rule.default is not None:
            checked[rule.name] = rule.default
        if rule.required and rule.name not in checked:
            raise ValidationError(f"parameters.{rule.name}", None, "given: the model requires it")
