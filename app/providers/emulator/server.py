"""The emulator's ASGI application: finds the provider and the protocol of a path, judges, records and answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from app.providers.emulator.delivery import JSON_TYPE, Delivery, refuse
from app.providers.emulator.enforcement import Breach, Kind
from app.providers.emulator.exchange import ClientGone, Exchange
from app.providers.emulator.intake import BODY_LIMIT_BYTES, Target, authorise, prepare
from app.providers.emulator.openai_chat import OpenAIChat
from app.providers.emulator.plan import Plan
from app.providers.emulator.provider import Providers, VirtualProvider
from app.providers.emulator.record import Outcome, RecordedCall
from app.providers.emulator.routing import split_path
from app.providers.emulator.wire import Endpoint, Refusal, Refused, WireProtocol

PROTOCOLS: tuple[WireProtocol[Any], ...] = (OpenAIChat(),)
CONTROL_PREFIX = "/_emulator"
_KNOWN_PATHS = 4096
_LOOP_TURNS_TO_READ_A_CLOSE = 8


class EmulatorApp:
    """Completion calls take no detour through a router; everything under /_emulator goes to `control`."""

    def __init__(self, providers: Providers, control: ASGIApp) -> None:
        self._providers = providers
        self._control = control
        self._targets: dict[tuple[str, str], Target] = {}
        self._serial = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(CONTROL_PREFIX):
            await self._control(scope, receive, send)
            return
        target = self._target(scope["method"], scope["path"])
        exchange = Exchange(scope, receive, send)
        try:
            if target is None:
                await self._unknown(scope, exchange)
            elif target.endpoint is Endpoint.MODELS:
                await self._models(target, scope, exchange)
            else:
                await self._complete(target, dict(scope["headers"]), exchange)
        except ClientGone:
            return

    def _target(self, method: str, path: str) -> Target | None:
        target = self._targets.get((method, path))
        # A provider may have been removed through the control API and made anew since.
        if target is not None and self._providers.find(target.provider.name) is target.provider:
            return target
        name, rest = split_path(path)
        for protocol in PROTOCOLS:
            endpoint = protocol.endpoint(method, rest)
            if endpoint is not None:
                if len(self._targets) >= _KNOWN_PATHS:
                    self._targets.clear()
                target = Target(self._providers.get(name), protocol, endpoint, rest)
                self._targets[method, path] = target
                return target
        return None

    async def _unknown(self, scope: Scope, exchange: Exchange) -> None:
        refusal = Refusal(404, f"Unknown request URL: {scope['method']} {scope['path']}.", code="unknown_url")
        await exchange.respond(404, [JSON_TYPE], PROTOCOLS[0].write_refusal(refusal))

    async def _models(self, target: Target, scope: Scope, exchange: Exchange) -> None:
        try:
            authorise(target, dict(scope["headers"]))
        except Refused as refused:
            body = target.protocol.write_refusal(refused.refusal)
            await exchange.respond(refused.refusal.status, [JSON_TYPE], body)
            return
        await exchange.respond(200, [JSON_TYPE], target.protocol.write_models(target.provider.models))

    async def _complete(self, target: Target, headers: Mapping[bytes, bytes], exchange: Exchange) -> None:
        """A call arrives when the whole of its request has been read, and from then on counts as parallel."""
        body = await exchange.read(BODY_LIMIT_BYTES)
        provider, serial = target.provider, f"{next(self._serial):08x}"
        prepared = prepare(target, headers, body, serial)
        plan, call = prepared.plan, prepared.call
        tokens = plan.tokens if plan else 0
        breaches, now = await _judge(provider, tokens)
        entry = provider.record.begin(
            now,
            id=f"req_{serial}",
            key=prepared.key,
            model=call.model if call else None,
            stream=call.stream if call else False,
        )
        for breach in breaches:
            provider.record.violated(breach, entry)
        refusal, refused_as = prepared.refusal, Outcome.REFUSED
        counted = not (breaches and provider.settings.enforce == "reject")
        if counted:
            provider.enforcement.admit(now, tokens)
        else:
            refusal, refused_as = _limited(breaches, provider), Outcome.LIMITED
        outcome = Outcome.ABANDONED
        try:
            if refusal is not None:
                await refuse(exchange, target.protocol, refusal, entry, entry.id.encode())
                outcome = refused_as
            elif call and plan and prepared.behaviour:
                _note_tokens(entry, plan)
                delivery = Delivery(exchange, target.protocol, call, plan, prepared.behaviour, entry, entry.id.encode())
                outcome = await delivery.run()
        finally:
            if counted:
                provider.enforcement.leave()
            provider.record.end(entry, provider.clock.now(), outcome)


async def _judge(provider: VirtualProvider, tokens: int) -> tuple[Sequence[Breach], float]:
    now = provider.clock.now()
    breaches = provider.enforcement.judge(now, tokens)
    if any(breach.kind is Kind.PARALLEL for breach in breaches):
        # The close of an earlier call may have reached this machine already and wait to be read from its socket:
        # the event loop reads sockets in no particular order, so that would be no fault of the client.
        for _ in range(_LOOP_TURNS_TO_READ_A_CLOSE):
            await asyncio.sleep(0)
        now = provider.clock.now()
        breaches = provider.enforcement.judge(now, tokens)
    return breaches, now


def _limited(breaches: Sequence[Breach], provider: VirtualProvider) -> Refusal:
    first = breaches[0]
    waits = [breach.early_by_seconds for breach in breaches if breach.early_by_seconds is not None]
    wait = max(waits, default=1.0)
    window = "" if first.kind is Kind.PARALLEL else f" in {provider.settings.window_seconds:g} s"
    return Refusal(
        429,
        f"Rate limit reached for {first.kind}: limit {first.limit}{window}, this call makes {first.observed}.",
        kind=first.kind,
        retry_after=str(math.ceil(wait)),
        retry_after_ms=math.ceil(wait * 1000),
    )


def _note_tokens(entry: RecordedCall, plan: Plan) -> None:
    if plan.refusal is None:
        entry.input_tokens = plan.answer.usage.input_tokens
        entry.output_tokens = plan.answer.usage.output_tokens
