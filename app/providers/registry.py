"""The wire protocols that this version speaks, by the name that a provider's `adapter` column holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.providers.openai import OpenAIAdapter
from app.providers.protocol import Adapter

ADAPTERS: Final[Mapping[str, Adapter]] = {adapter.name: adapter for adapter in (OpenAIAdapter(),)}

CATALOG_ADAPTERS: Final = frozenset({*ADAPTERS, "anthropic", "cohere", "google"})
"""What a provider's row may name: also protocols that this version's workers do not speak."""
