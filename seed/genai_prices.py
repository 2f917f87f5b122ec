"""Every provider and model of the installed `genai-prices` package, as items to seed.

Its prices are richer than a rate per token; what of them is taken, and when a price counts as unknown, is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from app.money import MAX_PRICE, PRICE_SCALE, print_decimal
from seed.model_types import model_type_of
from seed.plan import Identity, Item, Kind
from seed.reference import load_endpoints, model_identity, provider_identity

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider

_CACHE_PRICES: Final = {"cache_read_mtok": "CACHE_READ_TOKENS", "cache_write_mtok": "CACHE_WRITE_TOKENS"}
_RENAMED: Final = {"x-ai": "xai"}
"""The data's own `provider_match` knows it as "xai": two rows would be two sets of limits for one account."""
_PLAIN_URL: Final = re.compile(r"https://[a-z0-9.-]+(?:/[A-Za-z0-9._/-]*)?")
_NOISE: Final = Decimal("1e-15")


def load_genai_prices(at: datetime) -> list[Item]:
    """The whole of the package's data, with the prices in force at `at`. Importing it takes most of a second."""
    from genai_prices.data import providers

    endpoints = load_endpoints()
    items: list[Item] = []
    for provider in providers:
        name = _RENAMED.get(provider.id, provider.id)
        items.append(Item(provider_identity(name), _provider_values(name, provider, endpoints)))
        for model in provider.models:
            items += _model_items(name, model, at)
    return items


def _provider_values(name: str, provider: Provider, endpoints: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    endpoint = endpoints.get(name, {})
    return {
        "display_name": provider.name,
        "adapter": endpoint.get("adapter", "openai"),
        "base_url": endpoint.get("base_url") or plain_url(provider.api_pattern),
    }


def _model_items(provider_name: str, model: ModelInfo, at: datetime) -> list[Item]:
    identity = model_identity(provider_name, model.id)
    prices = prices_in_force(model, at)
    values = {
        "display_name": model.name or model.id,
        "description": (model.description or "").strip() or None,
        "model_type": model_type_of(model.id),
        "context_window": model.context_window or None,
        "cost_input_per_million": token_price(prices, "input_mtok"),
        "cost_output_per_million": token_price(prices, "output_mtok"),
        "status": "DEPRECATED" if model.deprecated else "ACTIVE",
    }
    items = [Item(identity, values, provider_identity(provider_name))]
    for key, unit in _CACHE_PRICES.items():
        if prices.get(key) is not None:
            price = {"price_per_million": token_price(prices, key)}
            items.append(Item(Identity(Kind.PRICE, f"{identity.key}#{unit}"), price, identity))
    return items


def plain_url(pattern: str) -> str | None:
    """The URL that a pattern stands for, where it stands for just one."""
    url = re.sub(r"\(\?:/\|\$\)$|\(/\|\$\)$", "", pattern).replace("\\.", ".")
    return url if "\\" not in url and not url.endswith(".") and _PLAIN_URL.fullmatch(url) else None


def prices_in_force(model: ModelInfo, at: datetime) -> Mapping[str, Any]:
    """The data's price fields whose start date has come, the last of them winning.

    A price for certain hours of the day is passed over: what a seed writes must not depend on the hour it runs at.
    """
    from genai_prices.types import ModelPrice, StartDateConstraint

    if isinstance(model.prices, ModelPrice):
        return vars(model.prices)
    in_force: Mapping[str, Any] = {}
    for entry in model.prices:
        constraint = entry.constraint
        if constraint is None or (isinstance(constraint, StartDateConstraint) and constraint.active(at)):
            in_force = vars(entry.prices)
    return in_force


def token_price(prices: Mapping[str, Any], key: str) -> str | None:
    """The price per million as a plain decimal string; None where no rate per token is the whole truth.

    Of a tiered price, the base. Zero only where the data says zero: nothing said is unknown, not free.
    """
    price = getattr(prices.get(key), "base", prices.get(key))
    if price is None or prices.get("requests_kcount"):
        return None  # a charge for each request comes on top, which no rate per token can express
    reasoning = prices.get("output_reasoning_mtok")
    if key == "output_mtok" and reasoning is not None and reasoning != prices.get(key):
        return None  # two rates for what is counted as one
    exact = without_float_noise(price)
    return None if exact is None else print_decimal(exact)


def without_float_noise(price: Decimal) -> Decimal | None:
    """The price, at most 10 decimals long; None where it is longer.

    Some figures were computed in binary floats (0.18000000000000002 for 0.18): an error below a float's own is undone.
    """
    if not price.is_finite() or not 0 <= price < MAX_PRICE:
        return None
    nearest = price.quantize(Decimal(1).scaleb(-PRICE_SCALE))
    return nearest if abs(nearest - price) <= price * _NOISE else None
