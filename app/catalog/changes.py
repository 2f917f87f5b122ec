"""From an input of the catalog to the column values to write, each within its bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final

from app.catalog import validation
from app.catalog.records import UNSET, CreateModel, CreateProvider, LlmModelStatus, UpdateModel, UpdateProvider

Check = Callable[[Any], Any]

_PROVIDER: Final[Mapping[str, Check]] = {
    "name": lambda value: validation.name(value, "name"),
    "display_name": validation.display_name,
    "adapter": lambda value: validation.name(value, "adapter"),
    "base_url": validation.base_url,
    "max_parallel_requests": lambda value: validation.count(value, "maxParallelRequests"),
    "requests_per_minute": lambda value: validation.count(value, "requestsPerMinute"),
    "tokens_per_minute": lambda value: validation.optional_count(value, "tokensPerMinute"),
    "is_enabled": bool,
}
_MODEL: Final[Mapping[str, Check]] = {
    "provider_id": str,
    "model_id": validation.model_id,
    "display_name": validation.display_name,
    "cost_input_per_million": lambda value: validation.optional_price(value, "costInputPerMillion"),
    "cost_output_per_million": lambda value: validation.optional_price(value, "costOutputPerMillion"),
    "description": validation.description,
    "model_type": lambda value: value,
    "capabilities": validation.capabilities,
    "context_window": lambda value: validation.optional_count(value, "contextWindow"),
    "max_output_tokens": lambda value: validation.optional_count(value, "maxOutputTokens"),
    "status": lambda value: value,
    "is_default": bool,
}


def provider_values(change: CreateProvider | UpdateProvider) -> dict[str, Any]:
    """Raises ValidationError. UNSET fields are left out."""
    return _checked(change, _PROVIDER)


def model_values(change: CreateModel | UpdateModel) -> dict[str, Any]:
    """Raises ValidationError. UNSET fields are left out; a deprecated model stops being the default."""
    values = _checked(change, _MODEL)
    if values.get("status") is LlmModelStatus.DEPRECATED:
        values["is_default"] = False
    return values


def _checked(change: Any, checks: Mapping[str, Check]) -> dict[str, Any]:
    given = ((item.name, getattr(change, item.name)) for item in fields(change))
    return {name: checks[name](value) for name, value in given if value is not UNSET}
