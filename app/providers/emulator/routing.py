"""Which provider a path belongs to."""

from __future__ import annotations

import re

DEFAULT_PROVIDER = "default"
_NO_PREFIX = re.compile(r"/(v\d\w*|chat|models)(/|$)")
"""Paths that begin with an API version, or with a resource, name no provider."""


def split_path(path: str) -> tuple[str, str]:
    """The provider's name and the rest: "/openai/v1/models" is ("openai", "/v1/models")."""
    if _NO_PREFIX.match(path):
        return DEFAULT_PROVIDER, path
    name, separator, rest = path[1:].partition("/")
    return (name, "/" + rest) if name and separator else (DEFAULT_PROVIDER, path)
