"""The rules of settings: their keys, their size, and how an infra model is named."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import orjson

from app.catalog.records import LlmModel, LlmModelType, LlmProvider
from app.catalog.references import format_model_ref, parse_model_ref
from app.catalog.resolution import unusable_reason
from app.catalog.snapshot import Snapshot
from app.errors import ModelUnavailable, ValidationError

INFRA_MODEL_PREFIX: Final = "infra_model_"
MAX_KEY: Final = 100
MAX_VALUE_BYTES: Final = 64 * 1024
_KEY: Final = re.compile(rf"[a-z][a-z0-9_.-]{{0,{MAX_KEY - 1}}}")
_INFRA_BOUND: Final = '{"modelId": "...", "providerId": "<name or id>"} or a reference such as "openai:gpt-4o-mini"'


class InfraModelName(NamedTuple):
    """`provider` is a provider's name or id."""

    provider: str
    model_id: str


def is_key(text: str) -> bool:
    return _KEY.fullmatch(text) is not None and text != INFRA_MODEL_PREFIX


def check_key(key: str) -> str:
    """Raises ValidationError."""
    if not is_key(key):
        raise ValidationError(
            "key", key, f'1 to {MAX_KEY} of a-z, 0-9, "_", "." and "-", beginning with a letter (infra_model_<task>)'
        )
    return key


def encode_value(value: Any) -> bytes:
    """As JSON. Raises ValidationError unless it is that, in at most 64 KiB."""
    try:
        encoded = orjson.dumps(value)
    except (TypeError, ValueError):
        raise ValidationError("value", value, "JSON, with integers of at most 64 bits and at most 250 levels") from None
    if len(encoded) > MAX_VALUE_BYTES:
        raise ValidationError("value", value, f"at most {MAX_VALUE_BYTES} bytes of JSON ({len(encoded)} given)")
    return encoded


def parse_infra_model(value: Any, field: str = "value") -> InfraModelName:
    """Raises ValidationError, naming `field`."""
    if isinstance(value, str):
        return InfraModelName(*parse_model_ref(value, field))
    if not isinstance(value, dict) or set(value) != {"modelId", "providerId"}:
        raise ValidationError(field, value, _INFRA_BOUND)
    model_id, provider = value["modelId"], value["providerId"]
    if not isinstance(model_id, str) or not isinstance(provider, str) or not model_id or not provider:
        raise ValidationError(field, value, _INFRA_BOUND)
    return InfraModelName(provider, model_id)


def resolve_infra_model(snapshot: Snapshot, key: str, name: InfraModelName, workspace_id: str, field: str) -> LlmModel:
    """The usable model that the setting `key` names. Raises ModelUnavailable with the reason and alternatives."""
    ref = format_model_ref(name.provider, name.model_id)
    provider = snapshot.provider_by_name(workspace_id, name.provider) or snapshot.provider(name.provider)
    if provider is None or provider.workspace_id != workspace_id:
        refs = snapshot.usable_refs(workspace_id, LlmModelType.TEXT)
        raise ModelUnavailable(ref, f"the catalog has no provider {name.provider!r} ({key})", refs, path=(field,))
    model = snapshot.model_of_provider(provider.id, name.model_id)
    if model is None:
        refs = snapshot.usable_refs(workspace_id, LlmModelType.TEXT, provider.id)
        reason = f"provider {provider.name!r} has no model {name.model_id!r} ({key})"
        raise ModelUnavailable(ref, reason, refs, path=(field,))
    _require_usable(snapshot, key, provider, model, field)
    return model


def _require_usable(snapshot: Snapshot, key: str, provider: LlmProvider, model: LlmModel, field: str) -> None:
    reason = unusable_reason(model, provider)
    if reason is not None:
        refs = snapshot.alternatives(model)
        raise ModelUnavailable(snapshot.ref(model), f"{reason} ({key})", refs, path=(field,))
