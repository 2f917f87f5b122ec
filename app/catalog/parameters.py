"""Parameter rules: what a model takes besides its messages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from app.errors import ValidationError

MAX_RULES: Final = 100
MAX_RULES_BYTES: Final = 64 * 1024
MAX_NAME_LENGTH: Final = 100
RESERVED: Final = frozenset({"model", "messages", "input", "stream", "stream_options"})
"""What the request itself sets."""


class ParameterRule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One parameter of one model. `options`: the values it may have; bounds are included."""

    name: str
    type: Literal["number", "integer", "string", "boolean", "array", "object", "any"] = "any"
    minimum: float | None = None
    maximum: float | None = None
    default: Any = None
    options: list[Any] | None = None
    required: bool = False


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


def read_rules(value: Any, field: str = "parameterRules") -> dict[str, ParameterRule]:
    """From JSON, by name. Raises ValidationError."""
    try:
        rules = msgspec.convert(value, list[ParameterRule])
    except msgspec.ValidationError as error:
        raise ValidationError(field, value, f"a list of rules ({error})") from None
    return {rule.name: rule for rule in rules}


def parse_rules(value: Any, field: str = "parameterRules") -> dict[str, ParameterRule]:
    """As `read_rules`, of rules that make sense: each names one parameter, and what it allows is not empty."""
    rules = read_rules(value, field)
    if len(value) > MAX_RULES:
        raise ValidationError(field, f"{len(value)} rules", f"at most {MAX_RULES} rules")
    size = len(msgspec.json.encode(value))
    if size > MAX_RULES_BYTES:
        raise ValidationError(field, f"{size} bytes", f"at most {MAX_RULES_BYTES} bytes of JSON")
    names: Sequence[str] = [rule["name"] for rule in value]
    for place, name in enumerate(names):
        _check_rule(rules[name], f"{field}[{place}]")
        if name in names[:place]:
            raise ValidationError(f"{field}[{place}].name", name, "the name of one rule only")
    return rules


def check_value(field: str, value: Any, rule: ParameterRule) -> None:
    """Raises ValidationError."""
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


def _check_rule(rule: ParameterRule, field: str) -> None:
    if not 1 <= len(rule.name) <= MAX_NAME_LENGTH or not rule.name.isprintable() or " " in rule.name:
        raise ValidationError(f"{field}.name", rule.name, f"1 to {MAX_NAME_LENGTH} printable characters without spaces")
    if rule.name in RESERVED:
        raise ValidationError(f"{field}.name", rule.name, "a parameter's: this one is set by the request itself")
    for name, value in (("minimum", rule.minimum), ("maximum", rule.maximum)):
        if value is not None and rule.type not in ("number", "integer", "any"):
            raise ValidationError(f"{field}.{name}", value, f"left out for the type {rule.type}")
        if value is not None and not math.isfinite(value):
            raise ValidationError(f"{field}.{name}", value, "finite")
    if rule.minimum is not None and rule.maximum is not None and rule.minimum > rule.maximum:
        raise ValidationError(f"{field}.maximum", rule.maximum, f"at least the minimum, {rule.minimum:.16g}")
    if rule.options is not None:
        if not rule.options:
            raise ValidationError(f"{field}.options", rule.options, "at least one value, or left out")
        free = msgspec.structs.replace(rule, options=None)
        for place, option in enumerate(rule.options):
            check_value(f"{field}.options[{place}]", option, free)
    if rule.default is not None:
        check_value(f"{field}.default", rule.default, rule)


def _bound(words: str, rule: ParameterRule) -> str:
    low, high = rule.minimum, rule.maximum
    if low is not None and high is not None:
        return f"{words} between {low:.16g} and {high:.16g}"
    if low is not None:
        return f"{words} of at least {low:.16g}"
    return words if high is None else f"{words} of at most {high:.16g}"
