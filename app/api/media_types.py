"""Which of the two response media types a client gets."""

from __future__ import annotations

from functools import lru_cache

GRAPHQL_RESPONSE = "application/graphql-response+json"
JSON = "application/json"


@lru_cache(maxsize=256)
def negotiate(accept: str) -> str | None:
    """The media type that `accept` prefers; application/json where it does not care; None where neither will do."""
    if not accept.strip():
        return JSON
    for media_type in _by_preference(accept):
        if media_type == GRAPHQL_RESPONSE:
            return GRAPHQL_RESPONSE
        if media_type in (JSON, "application/*", "*/*"):
            return JSON
    return None


@lru_cache(maxsize=256)
def prefers_html(accept: str) -> bool:
    """Whether a browser is asking for a page: text/html before any JSON."""
    for media_type in _by_preference(accept):
        if media_type == "text/html":
            return True
        if media_type in (GRAPHQL_RESPONSE, JSON):
            return False
    return False


@lru_cache(maxsize=256)
def is_json_in_utf8(content_type: str) -> bool:
    media_type, _, parameters = content_type.partition(";")
    if media_type.strip().lower() != JSON:
        return False
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in ("utf-8", "utf8"):
            return False
    return True


def _by_preference(accept: str) -> list[str]:
    weighted: list[tuple[float, str]] = []
    for part in accept.split(","):
        media_type, *parameters = part.split(";")
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        if weight > 0:
            weighted.append((weight, media_type.strip().lower()))
    return [media_type for _, media_type in sorted(weighted, key=lambda item: -item[0])]
