"""Model references: "openai:gpt-4o" and "#/Model/openai/gpt-4o". A model id may itself contain "/" and ":"."""

from __future__ import annotations

from typing import Final, NamedTuple

from app.errors import ValidationError

_POINTER: Final = "#/Model/"


class ModelRef(NamedTuple):
    provider_name: str
    model_id: str


def parse_model_ref(text: str, field: str = "model") -> ModelRef:
    """Splits at the first separator after the provider. Raises ValidationError naming `field`."""
    if text.startswith(_POINTER):
        provider_name, separator, model_id = text[len(_POINTER) :].partition("/")
    else:
        provider_name, separator, model_id = text.partition(":")
    if not (provider_name and separator and model_id):
        raise ValidationError(field, text, '"provider:model" or "#/Model/provider/model"')
    return ModelRef(provider_name, model_id)


def format_model_ref(provider_name: str, model_id: str) -> str:
    """The short form, "provider:model"."""
    return f"{provider_name}:{model_id}"
