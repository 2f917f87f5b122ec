"""The wire protocols that this version speaks, by the name that a provider's `adapter` column holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.providers.openai import OpenAIAdapter
from app.providers.protocol import Adapter

ADAPTERS: Final[Mapping[str, Adapter]] = {adapter.name: adapter for adapter in (OpenAIAdapter(),)}
