"""Environment variables in a file's text: ${NAME}, ${NAME:-default}, and $${ for a plain ${."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{(?P<body>[^{}]*)\}|\$\{")
_BODY: Final = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)


class Interpolated(NamedTuple):
    """`is_from_environment`: at least one variable was read, so that the text may be a secret."""

    text: str
    is_from_environment: bool


class InterpolationError(ValueError):
    """The message says what is wrong, without a value."""


def interpolate(text: str, environment: Mapping[str, str]) -> Interpolated:
    """A default stands in for a variable that is unset or empty. Raises InterpolationError."""
    if "${" not in text:
        return Interpolated(text, False)
    read = False

    def replace(match: re.Match[str]) -> str:
        nonlocal read
        if match.group() == "$${":
            return "${"
        parts = _BODY.fullmatch(match["body"]) if match["body"] is not None else None
        if parts is None:
            raise InterpolationError(
                "it has a ${ that is neither ${NAME} nor ${NAME:-default}; write $${ for the two characters themselves"
            )
        read = True
        name, default = parts["name"], parts["default"]
        value = environment.get(name)
        if default is not None:
            return value or default
        if value is None:
            raise InterpolationError(
                f"the environment variable {name} is not set; ${{{name}:-...}} would give it a default"
            )
        return value

    return Interpolated(_REFERENCE.sub(replace, text), read)


def escape(text: str) -> str:
    """What `interpolate` turns into `text`."""
    return text.replace("${", "$${")
