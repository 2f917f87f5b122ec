"""The catalog and the usage, read and changed by programs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

import tollgate
from tests.gateway_server import GatewayServer, told
from tollgate import Service


def test_models_are_listed_by_their_ids(service: Service) -> None:
    ids = service.list_models()
    assert {"oai:chat-1", "ant:chat-1", "goo:chat-1", "coh:rerank-1"} <= set(ids)
    assert service.list_models("ant") == ["ant:chat-1", "ant:video-1"]


def test_a_registered_model_can_be_called_at_once(admin: Service) -> None:
    model = admin.register_model(
        "oai:fresh-1",
        display_name="Fresh",
        cost_input_per_million=Decimal("0.1"),
        cost_output_per_million="0.2",
        capabilities=["streaming"],
        context_window=1000,
        max_output_tokens=100,
    )
    assert (model.info.display_name, model.info.context_window) == ("Fresh", 1000)
    assert model(told(input_tokens=10, output_tokens=10)).cost == Decimal("0.000003")
    with pytest.raises(tollgate.Conflict):
        admin.register_model("oai:fresh-1")


def test_a_model_that_nothing_was_asked_of_is_deleted(admin: Service) -> None:
    admin.register_model("oai:unused-1")
    assert admin.unregister_model("oai:unused-1") is True
    with pytest.raises(tollgate.NotFound):
        admin.get_model("oai:unused-1")
    with pytest.raises(tollgate.NotFound):
        admin.unregister_model("oai:unused-1")


def test_a_model_with_requests_is_deprecated_and_comes_back_when_it_is_registered_again(admin: Service) -> None:
    model = admin.register_model("oai:used-1", cost_input_per_million=1, cost_output_per_million=1)
    model("Hello")
    assert admin.unregister_model("oai:used-1") is False
    assert "oai:used-1" not in admin.list_models()
    assert admin.get_model("oai:used-1").info.status == "DEPRECATED"
    again = admin.register_model("oai:used-1", cost_input_per_million=2, cost_output_per_million=1, is_default=True)
    assert (again.info.key, again.info.status, again.info.is_default) == (model.info.key, "ACTIVE", True)
    assert again.info.cost_input_per_million == 2
    assert "oai:used-1" in admin.list_models()


def test_a_provider_comes_with_its_limits(admin: Service, server: GatewayServer) -> None:
    admin.register_provider("local", base_url=server.emulator.url("oai"), max_parallel_requests=2)
    assert admin.register_model("local:m").info.provider == "local"
    (row,) = server.rows("SELECT max_parallel_requests, adapter FROM llm_providers WHERE name = 'local'")
    assert tuple(row) == (2, "openai")


def test_what_cannot_be_registered_is_refused_by_name(admin: Service, service: Service) -> None:
    with pytest.raises(tollgate.NotFound, match="register_provider"):
        admin.register_model("nobody:m")
    with pytest.raises(tollgate.ValidationError, match="provider:model"):
        admin.register_model("m")
    inexact: Any = 0.1
    with pytest.raises(tollgate.ValidationError) as caught:
        admin.register_model("oai:m", cost_input_per_million=inexact)
    assert caught.value.field == "cost_input_per_million"
    with pytest.raises(tollgate.Forbidden):
        service.register_model("oai:m")


def test_the_usage_of_a_model_is_summed_exactly(admin: Service, service: Service) -> None:
    admin.register_model("oai:summed-1", cost_input_per_million="2.5", cost_output_per_million=10)
    before = datetime.now(UTC)
    for _ in range(3):
        service("oai:summed-1", told(input_tokens=100, output_tokens=7, cached_tokens=30))
    summary = service.get_usage_summary("oai:summed-1")
    assert (summary.model_id, summary.requests, summary.calls) == ("oai:summed-1", 3, 3)
    assert (summary.estimated_calls, summary.unpriced_calls) == (0, 0)
    assert summary.usage == tollgate.Usage(input_tokens=300, output_tokens=21, cache_read_tokens=90)
    assert (summary.cost, summary.currency) == (Decimal("0.00096"), "USD")
    assert sum(line.amount for line in summary.lines) == summary.cost
    assert service.get_usage_summary("oai:summed-1", since=before).requests == 3
    assert service.get_usage_summary("oai:summed-1", until=before).requests == 0
    assert service.get_usage_summary("oai:summed-1", since=before + timedelta(days=1)).cost == 0
    everything = service.get_usage_summary()
    assert everything.model_id is None
    assert everything.cost >= summary.cost
    with pytest.raises(tollgate.NotFound):
        service.get_usage_summary("oai:none")
    with pytest.raises(tollgate.ValidationError, match="time zone"):
        service.get_usage_summary(since=before.replace(tzinfo=None))
