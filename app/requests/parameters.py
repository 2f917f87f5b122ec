"""Parameter rules: what a model takes besides its messages, checked before a call, with defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from app.db.rows import LlmModel
from app.errors import ValidationError

_MAX_OUTPUT_TOKENS: Final = 10_000_000
_RESERVED: Final = frozenset({"model", "messages", "input", "stream", "stream_options"})


class ParameterRule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One parameter of one model. `options`: the values it may have; bounds are included."""

    name: str
    type: Literal["number", "integer", "string", "boolean", "array", "object", "any"] = "any"
    minimum: float | None = None
    maximum: float | None = None
    default: Any = None
    options: list[Any] | None = None
    required: bool = False


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

_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "number": (int, float),
    "integer": (int,),
    "string": (str,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
_WORDS: Final = {
    "number": "a number",
    "integer": "a whole number",
    "string": "a string",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}


def parse_rules(value: Any, field: str = "parameterRules") -> dict[str, ParameterRule]:
    """From JSON. Raises ValidationError."""
    try:
        rules = msgspec.convert(value, list[ParameterRule])
    except msgspec.ValidationError as error:
        raise ValidationError(field, value, f"a list of rules ({error})") from None
    return {rule.name: rule for rule in rules}


def check_parameters(parameters: Mapping[str, Any], model: LlmModel) -> dict[str, Any]:
    """The parameters with defaults filled in, `max_completion_tokens` as max_tokens. Raises ValidationError."""
    if not isinstance(parameters, dict):
        raise ValidationError("parameters", parameters, "an object")
    rules = STANDARD_RULES if model.parameter_rules is None else parse_rules(model.parameter_rules)
    checked: dict[str, Any] = {}
    for name, value in parameters.items():
        if name in _RESERVED:
            raise ValidationError(f"parameters.{name}", value, "left out: it is set by the request itself")
        if value is None:
            continue
        canonical = "max_tokens" if name in ("max_completion_tokens", "max_output_tokens") else name
        if canonical in checked:
            raise ValidationError(f"parameters.{name}", value, "given once: it is another name of max_tokens")
        rule = rules.get(canonical)
        if rule is not None:
            _check(name, value, rule)
        elif model.parameter_rules is not None and not model.allows_unknown_parameters and canonical != "max_tokens":
            known = ", ".join(sorted(rules)) or "none"
            raise ValidationError(f"parameters.{name}", value, f"left out: the model takes {known}")
        checked[canonical] = value
    for rule in rules.values():
        if rule.name not in checked and rule.default is not None:
            checked[rule.name] = rule.default
        if rule.required and rule.name not in checked:
            raise ValidationError(f"parameters.{rule.name}", None, "given: the model requires it")
    maximum = model.max_output_tokens
    if maximum is not None and checked.get("max_tokens", 0) > maximum:
        raise ValidationError("parameters.max_tokens", checked["max_tokens"], f"at most {maximum}, the model's maximum")
    return checked


def _check(name: str, value: Any, rule: ParameterRule) -> None:
    field = f"parameters.{name}"
    words = _WORDS.get(rule.type, "a value")
    kinds = _KINDS.get(rule.type)
    if kinds is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and rule.type != "boolean")):
        raise ValidationError(field, value, _bound(words, rule))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = rule.minimum, rule.maximum
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            raise ValidationError(field, value, _bound(words, rule))
    if rule.options is not None and value not in rule.options:
        raise ValidationError(field, value, f"one of {', '.join(map(str, rule.options))}")


def _bound(words: str, rule: ParameterRule) -> str:
    low, high = rule.minimum, rule.maximum
    if low is not None and high is not None:
        return f"{words} between {low:.16g} and {high:.16g}"
    if low is not None:
        return f"{words} of at least {low:.16g}"
    return words if high is None else f"{words} of at most {high:.16g}"
