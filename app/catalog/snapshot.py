"""The whole catalog at one revision, immutable, with the lookups that resolvers and workers need built once."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, TypeVar

from app.catalog.records import (
    DEFAULT_WORKSPACE,
    LlmModel,
    LlmModelStatus,
    LlmModelType,
    LlmProvider,
    ModelPrice,
    SystemSetting,
    UsageUnit,
)
from app.catalog.references import format_model_ref, parse_model_ref

T = TypeVar("T")

_MAX_ALTERNATIVES: Final = 5
_MAX_DERIVED: Final = 32


class Snapshot:
    """The catalog as it was at `revision`.

    Providers are sorted by name, models by provider name and model id, settings by key.
    """

    __slots__ = (
        "_derived",
        "_models",
        "_models_by_key",
        "_models_named",
        "_models_of",
        "_prices",
        "_providers",
        "_providers_by_name",
        "_settings",
        "horizon",
        "models",
        "prices",
        "providers",
        "revision",
        "settings",
    )

    def __init__(
        self,
        revision: int,
        providers: Iterable[LlmProvider] = (),
        models: Iterable[LlmModel] = (),
        prices: Iterable[ModelPrice] = (),
        settings: Iterable[SystemSetting] = (),
        *,
        horizon: int = 0,
    ) -> None:
        """`horizon` is the oldest transaction that was under way when it was read: later reads begin there."""
        self.revision = revision
        self.horizon = horizon
        self.providers = tuple(sorted(providers, key=attrgetter("name", "id")))
        self._providers = {provider.id: provider for provider in self.providers}
        self._providers_by_name = {(provider.workspace_id, provider.name): provider for provider in self.providers}

        grouped: defaultdict[str, list[LlmModel]] = defaultdict(list)
        for model in models:
            grouped[model.provider_id].append(model)
        self._models_of = {
            provider_id: tuple(sorted(group, key=attrgetter("model_id"))) for provider_id, group in grouped.items()
        }
        self.models = tuple(model for provider in self.providers for model in self._models_of.get(provider.id, ()))
        self._models = {model.id: model for model in self.models}
        named: defaultdict[str, list[LlmModel]] = defaultdict(list)
        for model in self.models:
            named[model.model_id].append(model)
        self._models_named = {name: tuple(group) for name, group in named.items()}
        self._models_by_key = {(model.provider_id, model.model_id): model for model in self.models}

        self.prices = tuple(prices)
        dated: defaultdict[tuple[str, UsageUnit], list[ModelPrice]] = defaultdict(list)
        for price in self.prices:
            dated[price.model_id, price.unit].append(price)
        self._prices = {key: tuple(sorted(group, key=attrgetter("effective_at"))) for key, group in dated.items()}
        self.settings = tuple(sorted(settings, key=attrgetter("key")))
        self._settings = {setting.key: setting for setting in self.settings}
        self._derived: dict[Hashable, Any] = {}

    def provider(self, id: str) -> LlmProvider | None:
        return self._providers.get(id)

    def provider_by_name(self, workspace_id: str, name: str) -> LlmProvider | None:
        return self._providers_by_name.get((workspace_id, name))

    def model(self, id: str) -> LlmModel | None:
        return self._models.get(id)

    def model_by_ref(self, ref: str, workspace_id: str = DEFAULT_WORKSPACE, field: str = "ref") -> LlmModel | None:
        """Raises ValidationError, naming `field`, where `ref` is no reference at all."""
        provider_name, model_id = parse_model_ref(ref, field)
        provider = self._providers_by_name.get((workspace_id, provider_name))
        return None if provider is None else self._models_by_key.get((provider.id, model_id))

    def models_named(self, model_id: str) -> tuple[LlmModel, ...]:
        """Of every provider that has one of this name."""
        return self._models_named.get(model_id, ())

    def model_of_provider(self, provider_id: str, model_id: str) -> LlmModel | None:
        return self._models_by_key.get((provider_id, model_id))

    def models_of(self, provider_id: str) -> tuple[LlmModel, ...]:
        return self._models_of.get(provider_id, ())

    def provider_of(self, model: LlmModel) -> LlmProvider:
        return self._providers[model.provider_id]

    def ref(self, model: LlmModel) -> str:
        """ "openai:gpt-4o"."""
        return format_model_ref(self._providers[model.provider_id].name, model.model_id)

    def setting(self, key: str) -> SystemSetting | None:
        return self._settings.get(key)

    def prices_of(self, model_id: str, unit: UsageUnit) -> Sequence[ModelPrice]:
        """The dated prices of the model with this row id, oldest first."""
        return self._prices.get((model_id, unit), ())

    def price_at(self, model_id: str, unit: UsageUnit, at: datetime) -> ModelPrice | None:
        """The newest price effective at or before `at`; its `price_per_million` is None where it is not known."""
        prices = self._prices.get((model_id, unit), ())
        count = bisect_right(prices, at, key=attrgetter("effective_at"))
        return prices[count - 1] if count else None

    def is_usable(self, model: LlmModel) -> bool:
        """Active, of an enabled provider."""
        return model.status is LlmModelStatus.ACTIVE and self._providers[model.provider_id].is_enabled

    def alternatives(self, model: LlmModel) -> tuple[str, ...]:
        """Refs of usable models of the same type and workspace: the same provider's first, defaults first."""
        return self.usable_refs(model.workspace_id, model.model_type, model.provider_id, without=model.id)

    def usable_refs(
        self, workspace_id: str, model_type: LlmModelType, provider_id: str | None = None, *, without: str | None = None
    ) -> tuple[str, ...]:
        """At most five, those of `provider_id` first, defaults before others."""
        usable = [
            model
            for model in self.models
            if model.id != without
            and model.model_type is model_type
            and model.workspace_id == workspace_id
            and self.is_usable(model)
        ]
        usable.sort(key=lambda model: (model.provider_id != provider_id, not model.is_default))
        return tuple(self.ref(model) for model in usable[:_MAX_ALTERNATIVES])

    def derived(self, key: Hashable, build: Callable[[], T]) -> T:
        """What `build` made for `key` the first time: selections and indexes that only this revision determines."""
        value: T = self._derived.pop(key) if key in self._derived else build()
        if len(self._derived) >= _MAX_DERIVED:
            del self._derived[next(iter(self._derived))]
        # Last now, so that the first is the one that was not asked for the longest.
        self._derived[key] = value
        return value
