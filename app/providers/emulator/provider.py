"""A virtual provider: its settings, its enforcement and its record; and the registry of all on one server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

import orjson

from app.providers.emulator.behaviour import Behaviour, ProviderSettings
from app.providers.emulator.enforcement import Enforcement, Limits
from app.providers.emulator.jobs import Jobs
from app.providers.emulator.record import Clock, Record

_REMEMBERED = 4096
"""Per-call directives whose validated form is kept, and model names that a provider lists."""


class VirtualProvider:
    def __init__(self, name: str, settings: ProviderSettings, *, seed: int, clock: Clock, record_bound: int) -> None:
        self.name = name
        self.settings = settings
        self.clock = clock
        self.chance = Random(f"{seed}:{name}")  # noqa: S311  repeatable on purpose, nothing secret depends on it
        self.record = Record(name, clock, record_bound)
        self.enforcement = Enforcement(
            _limits(settings),
            window_seconds=settings.window_seconds,
            tolerance_seconds=settings.tolerance_ms / 1000,
        )
        self.jobs = Jobs()
        self.record.limits_edited(clock.now(), self.enforcement.limits, settings.window_seconds)
        self._failures: Counter[str] = Counter()
        self._overrides: dict[bytes, Behaviour] = {}
        self._models: dict[str, None] = {}

    def configure(self, patch: Mapping[str, Any]) -> None:
        """Applies to the calls that arrive from now on. Raises pydantic.ValidationError and then changes nothing."""
        settings = self.settings.merged(patch)
        limits, now = _limits(settings), self.clock.now()
        if limits != self.enforcement.limits or settings.window_seconds != self.settings.window_seconds:
            self.record.limits_edited(now, limits, settings.window_seconds)
        self.enforcement.change(
            limits,
            now=now,
            window_seconds=settings.window_seconds,
            tolerance_seconds=settings.tolerance_ms / 1000,
            grace_seconds=settings.grace_seconds,
        )
        self.settings = settings
        self._overrides.clear()
        if "errors_first" in patch:
            self._failures.clear()

    def behaviour(self, directive: Mapping[str, Any]) -> Behaviour:
        """The settings, or what a call's own directive makes of them. Raises pydantic.ValidationError."""
        if not directive:
            return self.settings
        key = orjson.dumps(directive, option=orjson.OPT_SORT_KEYS)
        known = self._overrides.get(key)
        if known is None:
            known = self.settings.overridden(directive)
            if len(self._overrides) >= _REMEMBERED:
                self._overrides.clear()
            self._overrides[key] = known
        return known

    def fails(self, behaviour: Behaviour, key: str) -> bool:
        """Whether the next call meets the behaviour's error or fault; counts it if so."""
        if not behaviour.may_fail:
            return False
        if behaviour.errors_first is not None:
            counted = f"key:{key}" if behaviour.errors_first_per == "key" else "provider"
            if self._failures[counted] >= behaviour.errors_first:
                return False
        if behaviour.error_rate is not None and self.chance.random() >= behaviour.error_rate:
            return False
        if behaviour.errors_first is not None:
            self._failures[counted] += 1
        return True

    def saw_model(self, model: str) -> None:
        if model not in self._models and len(self._models) < _REMEMBERED:
            self._models[model] = None

    @property
    def models(self) -> list[str]:
        return list(self.settings.models) or list(self._models) or ["emulated-model"]


class Providers:
    """Made on first use, with the server's defaults."""

    def __init__(self, defaults: ProviderSettings, *, seed: int = 0, record_bound: int = 100_000) -> None:
        self.clock = Clock()
        self._defaults = defaults
        self._seed = seed
        self._record_bound = record_bound
        self._providers: dict[str, VirtualProvider] = {}

    def get(self, name: str) -> VirtualProvider:
        provider = self._providers.get(name)
        if provider is None:
            provider = VirtualProvider(
                name, self._defaults, seed=self._seed, clock=self.clock, record_bound=self._record_bound
            )
            self._providers[name] = provider
        return provider

    def find(self, name: str) -> VirtualProvider | None:
        return self._providers.get(name)

    def all(self) -> list[VirtualProvider]:
        return list(self._providers.values())

    def remove(self, name: str) -> None:
        self._providers.pop(name, None)


def _limits(settings: ProviderSettings) -> Limits:
    return Limits(settings.max_parallel, settings.requests_per_minute, settings.tokens_per_minute)
