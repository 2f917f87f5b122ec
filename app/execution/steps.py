"""The steps of an attempt, in order: resolve_model, pick_credential, render, call, read_usage, price.

Each takes the attempt and what it needs, and answers the attempt with its part filled in, or raises a ProviderError.
No transaction is open in any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Protocol

import orjson
from pydantic import SecretStr

from app.catalog.snapshot import Snapshot
from app.errors import InvalidRequest, InvalidResponse, ModelNotFound, ValidationError
from app.execution.attempt import Attempt
from app.prices.calculation import disjoint_parts, price_usage
from app.prices.records import Usage
from app.providers.protocol import Adapter, ModelCall
from app.providers.transport import Transport

_BYTES_PER_TOKEN: Final = 4
"""What prose comes to, for an estimate that is neither high nor low."""


class Credentials(Protocol):
    def for_provider(self, provider_name: str) -> SecretStr: ...


class Endpoints(Protocol):
    def endpoint(self, provider_name: str, adapter: str, base_url: str | None) -> tuple[str, str | None]:
        """The adapter's name and base URL to use for a provider, given those of its row."""
        ...


class CatalogEndpoints:
    """Calls go where the catalog says."""

    def endpoint(self, provider_name: str, adapter: str, base_url: str | None) -> tuple[str, str | None]:
        return adapter, base_url


class EmulatorEndpoints:
    """Calls of every provider go to a provider emulator, which needs no key. For demonstrations."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def endpoint(self, provider_name: str, adapter: str, base_url: str | None) -> tuple[str, str | None]:
        return "openai", f"{self._url}/{provider_name}/v1"

    def for_provider(self, provider_name: str) -> SecretStr:
        return SecretStr("demo")


def resolve_model(
    attempt: Attempt, snapshot: Snapshot, adapters: Mapping[str, Adapter], endpoints: Endpoints
) -> Attempt:
    model = snapshot.model(attempt.claim.model_id) if attempt.claim.model_id is not None else None
    provider = snapshot.provider(model.provider_id) if model is not None else None
    if model is None or provider is None:
        raise ModelNotFound(f"model {attempt.claim.model_ref!r} was deleted")
    name, base_url = endpoints.endpoint(provider.name, provider.adapter, provider.base_url)
    adapter = adapters.get(name)
    if adapter is None:
        known = ", ".join(sorted(adapters))
        raise InvalidRequest(f"provider {provider.name!r} has the adapter {name!r}; this worker has {known}")
    if not base_url and provider.name != adapter.name:
        # The adapter's own address is for the provider of that name: nobody else's key goes there.
        raise InvalidRequest(f"provider {provider.name!r} has no base URL")
    return replace(
        attempt, model=model, provider=provider, adapter=adapter, base_url=base_url or adapter.default_base_url
    )


def pick_credential(attempt: Attempt, credentials: Credentials) -> Attempt:
    assert attempt.provider is not None
    return replace(attempt, credential=credentials.for_provider(attempt.provider.name))


def render(attempt: Attempt) -> Attempt:
    assert attempt.adapter is not None
    assert attempt.model is not None
    assert attempt.base_url is not None
    assert attempt.credential is not None
    call = ModelCall(
        model_id=attempt.model.model_id,
        base_url=attempt.base_url,
        credential=attempt.credential,
        payload=attempt.claim.payload,
        parameters=attempt.claim.parameters,
        request_id=attempt.claim.request_id,
    )
    return replace(attempt, wire_request=attempt.adapter.render(call))


async def call(attempt: Attempt, transport: Transport, *, timeout_seconds: float) -> Attempt:
    assert attempt.adapter is not None
    assert attempt.wire_request is not None
    response = await transport.send(attempt.wire_request, timeout_seconds=timeout_seconds, send_by=attempt.send_by)
    return replace(attempt, response=attempt.adapter.parse(response))


def read_usage(attempt: Attempt) -> Attempt:
    """What the provider says, else an estimate, flagged as one."""
    assert attempt.response is not None
    usage = attempt.response.usage
    if usage is None:
        usage = Usage(
            input_tokens=_estimate(attempt.claim.payload),
            output_tokens=_estimate(attempt.response.output_text or attempt.response.output),
            estimated=True,
        )
    try:
        disjoint_parts(usage)
    except ValidationError as error:
        raise InvalidResponse(f"the provider's usage contradicts itself: {error.message}") from None
    return replace(attempt, usage=usage)


def price(attempt: Attempt, snapshot: Snapshot) -> Attempt:
    """At the prices in force when the call started."""
    assert attempt.usage is not None
    assert attempt.model is not None
    model_id, started_at = attempt.model.id, attempt.claim.started_at
    receipt = price_usage(attempt.usage, lambda unit: snapshot.price_at(model_id, unit, started_at))
    return replace(attempt, receipt=receipt)


def _estimate(content: object) -> int:
    size = len(content.encode()) if isinstance(content, str) else len(orjson.dumps(content))
    return max(1, -(-size // _BYTES_PER_TOKEN))
