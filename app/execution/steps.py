"""The steps of an attempt, in order: resolve_model, pick_credential, render, call, read_usage, price.

Each takes the attempt and what it needs, and answers the attempt with its part filled in, or raises a ProviderError.
No transaction is open in any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol
from urllib.parse import urlsplit

from msgspec import structs
from pydantic import SecretStr

from app.catalog.snapshot import Snapshot
from app.db.rows import LlmProvider
from app.errors import InvalidRequest, InvalidResponse, ModelNotFound, ValidationError
from app.execution.attempt import Attempt, ChunkSink, Progress, Timeouts
from app.execution.estimate import estimate_usage
from app.execution.polling import poll
from app.prices.calculation import disjoint_parts, price_usage
from app.prices.records import Usage
from app.providers.adapter import Adapter, ModelCall, ModelResponse, Unfinished
from app.providers.operations import OPERATION_OF, Chunk
from app.providers.sse import EventDecoder
from app.providers.transport import Transport


class Credentials(Protocol):
    def for_provider(self, provider_name: str) -> SecretStr: ...


class Endpoints(Protocol):
    def base_url(self, provider: LlmProvider, adapter: Adapter) -> str | None:
        """Where the provider's calls go; None where that is not known."""
        ...


class CatalogEndpoints:
    """Calls go where the catalog says."""

    def base_url(self, provider: LlmProvider, adapter: Adapter) -> str | None:
        if provider.base_url:
            return provider.base_url
        # The adapter's own address is for the provider of that name: nobody else's key goes there.
        return adapter.default_base_url if provider.name == adapter.name else None


class EmulatorEndpoints:
    """Calls of every provider go to a provider emulator, which needs no key. For demonstrations."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def base_url(self, provider: LlmProvider, adapter: Adapter) -> str | None:
        return f"{self._url}/{provider.name}{urlsplit(adapter.default_base_url).path}"

    def for_provider(self, provider_name: str) -> SecretStr:
        return SecretStr("demo")


def resolve_model(
    attempt: Attempt, snapshot: Snapshot, adapters: Mapping[str, Adapter], endpoints: Endpoints, defaults: Timeouts
) -> Attempt:
    model = snapshot.model(attempt.claim.model_id) if attempt.claim.model_id is not None else None
    provider = snapshot.provider(model.provider_id) if model is not None else None
    if model is None or provider is None:
        raise ModelNotFound(f"model {attempt.claim.model_ref!r} was deleted")
    adapter = adapters.get(provider.adapter)
    if adapter is None:
        known = ", ".join(sorted(adapters))
        raise InvalidRequest(f"provider {provider.name!r} has the adapter {provider.adapter!r}; known are {known}")
    operation = OPERATION_OF[type(attempt.request)]
    if operation not in adapter.operations:
        raise InvalidRequest(f"the protocol {adapter.name!r} of provider {provider.name!r} has no {operation}")
    base_url = endpoints.base_url(provider, adapter)
    if base_url is None:
        raise InvalidRequest(f"provider {provider.name!r} has no base URL")
    timeouts = Timeouts(
        connect=model.connect_timeout_seconds or defaults.connect,
        read=model.read_timeout_seconds or defaults.read,
        total=model.total_timeout_seconds or defaults.total,
    )
    return structs.replace(
        attempt,
        model=model,
        provider=provider,
        adapter=adapter,
        base_url=base_url,
        timeouts=timeouts,
    )


def pick_credential(attempt: Attempt, credentials: Credentials) -> Attempt:
    assert attempt.provider is not None
    return structs.replace(attempt, credential=credentials.for_provider(attempt.provider.name))


def render(attempt: Attempt, *, stream: bool) -> Attempt:
    assert attempt.adapter is not None
    assert attempt.model is not None
    assert attempt.base_url is not None
    assert attempt.credential is not None
    model_call = ModelCall(
        model_id=attempt.model.model_id,
        base_url=attempt.base_url,
        credential=attempt.credential,
        request=attempt.request,
        parameters=attempt.parameters,
        request_id=attempt.claim.request_id,
        stream=stream,
        allows_unknown=attempt.model.allows_unknown_parameters,
    )
    return structs.replace(attempt, model_call=model_call, wire_request=attempt.adapter.render(model_call))


async def call(attempt: Attempt, transport: Transport, *, progress: Progress, sink: ChunkSink | None) -> Attempt:
    """Sends the call and reads its answer; of a streamed one each chunk goes to `sink` as it comes."""
    assert attempt.model_call is not None
    progress.is_sent = True
    if attempt.model_call.stream:
        response = await _stream(attempt, transport, progress, sink)
    else:
        response = await _whole(attempt, transport, progress)
    return structs.replace(attempt, response=response)


async def _whole(attempt: Attempt, transport: Transport, progress: Progress) -> ModelResponse:
    adapter, model_call, timeouts = attempt.adapter, attempt.model_call, attempt.timeouts
    assert adapter is not None
    assert model_call is not None
    assert timeouts is not None
    assert attempt.wire_request is not None
    answer = await transport.send(
        attempt.wire_request, connect_seconds=timeouts.connect, read_seconds=timeouts.read, send_by=attempt.send_by
    )
    parsed = adapter.parse(model_call, answer)
    if isinstance(parsed, Unfinished):
        progress.is_accepted = True
        return await poll(parsed, adapter, model_call, transport, timeouts)
    return parsed


async def _stream(attempt: Attempt, transport: Transport, progress: Progress, sink: ChunkSink | None) -> ModelResponse:
    adapter, model_call, timeouts = attempt.adapter, attempt.model_call, attempt.timeouts
    assert adapter is not None
    assert model_call is not None
    assert timeouts is not None
    assert attempt.wire_request is not None
    async with transport.stream(
        attempt.wire_request, connect_seconds=timeouts.connect, read_seconds=timeouts.read, send_by=attempt.send_by
    ) as answer:
        if answer.status != 200:
            parsed = adapter.parse(model_call, await answer.whole())
            if isinstance(parsed, Unfinished):
                raise InvalidResponse("the provider does not stream this", http_status=answer.status)
            return parsed
        reader = adapter.stream_reader(model_call)
        decoder = EventDecoder()
        async for piece in answer.pieces():
            chunks: list[Chunk] = []
            try:
                for event in decoder.feed(piece):
                    chunks += reader.read(event.event, event.data)
            finally:
                # Also of what came just before an error: it was billed.
                progress.add(chunks, attempt.started)
            if chunks and sink is not None:
                await sink(chunks)
        reader.end()
        return replace(progress.collector.response(), provider_request_id=_request_id(answer.headers))


def _request_id(headers: Mapping[str, str]) -> str | None:
    return headers.get("x-request-id") or headers.get("request-id")


def read_usage(attempt: Attempt, told: Usage | None = None) -> Attempt:
    """What the provider says, else an estimate, flagged as one: of the output only where a stream `told` the input."""
    assert attempt.response is not None
    usage = attempt.response.usage
    if usage is None:
        usage = estimate_usage(attempt.request, attempt.response.output, attempt.parameters)
        if told is not None:
            usage = replace(told, output_tokens=max(told.output_tokens, usage.output_tokens), estimated=True)
    try:
        disjoint_parts(usage)
    except ValidationError as error:
        raise InvalidResponse(f"the provider's usage contradicts itself: {error.message}") from None
    return structs.replace(attempt, usage=usage)


def price(attempt: Attempt, snapshot: Snapshot) -> Attempt:
    """At the prices in force when the call started."""
    assert attempt.usage is not None
    assert attempt.model is not None
    model_id, started_at = attempt.model.id, attempt.claim.started_at
    receipt = price_usage(attempt.usage, lambda unit: snapshot.price_at(model_id, unit, started_at))
    return structs.replace(attempt, receipt=receipt)
