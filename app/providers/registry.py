"""The wire protocols, by the name that a provider's `adapter` column holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.providers.adapter import Adapter
from app.providers.anthropic import AnthropicAdapter
from app.providers.cohere import CohereAdapter
from app.providers.google import GoogleAdapter
from app.providers.openai.adapter import OpenAIAdapter
from app.providers.openai.responses_client import OpenAIResponsesAdapter

_ADAPTERS: Final[tuple[Adapter, ...]] = (
    AnthropicAdapter(),
    CohereAdapter(),
    GoogleAdapter(),
    OpenAIAdapter(),
    OpenAIResponsesAdapter(),
)
ADAPTERS: Final[Mapping[str, Adapter]] = {adapter.name: adapter for adapter in _ADAPTERS}
