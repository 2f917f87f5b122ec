"""The reference's six providers, their models and settings, as items to seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

from app.money import parse_price, print_decimal
from seed.plan import Identity, Item, Kind

WORKSPACE: Final = "default"


def provider_identity(name: str) -> Identity:
    return Identity(Kind.PROVIDER, f"{WORKSPACE}/{name}")


def model_identity(provider_name: str, model_id: str) -> Identity:
    return Identity(Kind.MODEL, f"{WORKSPACE}/{provider_name}:{model_id}")


def load_reference() -> list[Item]:
    """Reads seed/data/reference.json."""
    data = _read("reference.json")
    endpoints = load_endpoints()
    items: list[Item] = []
    for provider in data["providers"]:
        identity = provider_identity(provider["name"])
        endpoint = endpoints[provider["name"]]
        values = {
            "display_name": provider["display_name"],
            "adapter": endpoint["adapter"],
            "base_url": endpoint["base_url"],
            "max_parallel_requests": provider["max_parallel_requests"],
            "requests_per_minute": provider["requests_per_minute"],
        }
        items.append(Item(identity, values))
        items += [_model(provider["name"], model) for model in provider["models"]]
    items += [Item(Identity(Kind.SETTING, entry["key"]), {"value": entry["value"]}) for entry in data["settings"]]
    return items


def load_endpoints() -> Mapping[str, Mapping[str, str]]:
    """Adapter and base URL by provider name, from seed/data/endpoints.json."""
    endpoints: Mapping[str, Mapping[str, str]] = _read("endpoints.json")["providers"]
    return endpoints


def _model(provider_name: str, model: Mapping[str, Any]) -> Item:
    values = {
        "display_name": model["display_name"],
        "cost_input_per_million": print_decimal(parse_price(model["input"], "input")),
        "cost_output_per_million": print_decimal(parse_price(model["output"], "output")),
        "status": "ACTIVE",
        "is_default": model.get("is_default", False),
    }
    if "context_window" in model:
        values["context_window"] = model["context_window"]
    return Item(model_identity(provider_name, model["model_id"]), values, provider_identity(provider_name))


def _read(name: str) -> Any:
    return json.loads(files("seed").joinpath("data", name).read_text(encoding="utf-8"))
