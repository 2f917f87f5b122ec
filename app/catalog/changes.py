"""From an input of the catalog to the column values to write, each within its bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final

from app.catalog import validation
from app.catalog.records import UNSET, CreateModel, CreateProvider, LlmModelStatus, UpdateModel, UpdateProvider
from app.errors import ValidationError

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
    "parameter_rules": validation.parameter_rules,
    "allows_unknown_parameters": bool,
    "connect_timeout_seconds": lambda value: validation.optional_timeout(value, "connectTimeoutSeconds"),
    "read_timeout_seconds": lambda value: validation.optional_timeout(value, "readTimeoutSeconds"),
    "total_timeout_seconds": lambda value: validation.optional_timeout(value, "totalTimeoutSeconds"),
}
_NULLABLE: Final = frozenset(
    (
        "base_url",
        "tokens_per_minute",
        "cost_input_per_million",
        "cost_output_per_million",
        "description",
        "context_window",
        "max_output_tokens",
        "parameter_rules",
        "connect_timeout_seconds",
        "read_timeout_seconds",
        "total_timeout_seconds",
    )
)


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
    given = {item.name: getattr(change, item.name) for item in fields(change)}
    values = {name: value for name, value in given.items() if value is not UNSET}
    for name, value in values.items():
        if value is None and name not in _NULLABLE:
            raise ValidationError(_as_written(name), None, "given, or left out where it is to stay as it is")
    return {name: checks[name](value) for name, value in values.items()}


def _as_written(name: str) -> str:
    """The field's name in the API: "display_name" is "displayName" there."""
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)
