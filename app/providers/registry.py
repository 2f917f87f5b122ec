"""The wire protocols, by the name that a provider's `adapter` column holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.providers.adapter import Adapter
from app.providers.openai_adapter import OpenAIAdapter

ADAPTERS: Final[Mapping[str, Adapter]] = {adapter.name: adapter for adapter in (OpenAIAdapter(),)}

CATALOG_ADAPTERS: Final = frozenset({*ADAPTERS, "anthropic", "cohere", "google"})
"""What a provider's row may name: also protocols that this version's workers do not speak."""
