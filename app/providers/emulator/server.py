"""The emulator's ASGI application: finds the provider and the protocol of a path, judges, records and answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from app.providers.emulator.behaviour import Behaviour
from app.providers.emulator.delivery import Delivery, refuse
from app.providers.emulator.enforcement import Breach, Kind
from app.providers.emulator.exchange import ClientGone, Exchange
from app.providers.emulator.intake import BODY_LIMIT_BYTES, Target, authorise, prepare
from app.providers.emulator.jobs import Job, VideoCall
from app.providers.emulator.protocols.anthropic import Anthropic
from app.providers.emulator.protocols.cohere import Cohere
from app.providers.emulator.protocols.google import Google
from app.providers.emulator.protocols.openai import OpenAI
from app.providers.emulator.provider import Providers, VirtualProvider
from app.providers.emulator.record import Outcome
from app.providers.emulator.routing import split_path
from app.providers.emulator.wire import JSON_TYPE, Answer, Head, Lookup, Operation, Refusal, Refused, WireProtocol

PROTOCOLS: tuple[WireProtocol, ...] = (Anthropic(), Google(), Cohere(), OpenAI())
"""In the order in which they are asked for a path: OpenAI's takes what is like its own."""
CONTROL_PREFIX = "/_emulator"
_KNOWN_PATHS = 4096
_LOOP_TURNS_TO_READ_A_CLOSE = 8


class EmulatorApp:
    """Calls take no detour through a router; everything under /_emulator goes to `control`."""

    def __init__(self, providers: Providers, control: ASGIApp) -> None:
        self._providers = providers
        self._control = control
        self._targets: dict[str, Target] = {}
        self._serial = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if scope["type"] != "http" or path.startswith(CONTROL_PREFIX):
            await self._control(scope, receive, send)
            return
        headers = dict(scope["headers"])
        # What is known of a path holds for POST alone: a GET may mean one thing or another by its headers.
        target = self._targets.get(path) if scope["method"] == "POST" else None
        # A provider may have been removed through the control API and made anew since.
        if target is None or self._providers.find(target.provider.name) is not target.provider:
            target = self._target(scope["method"], path, headers)
        exchange = Exchange(scope, receive, send)
        try:
            if target is None:
                await self._unknown(scope, exchange)
                return
            head = Head(scope["method"], target.path, scope["path"], scope["query_string"], headers)
            if target.operation is not None:
                await self._call(target, target.operation, head, exchange)
            elif target.lookup is not None:
                await self._look_up(target, target.lookup, head, exchange)
        except ClientGone:
            return

    def _target(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> Target | None:
        name, rest = split_path(path)
        for protocol in PROTOCOLS:
            route = protocol.route(Head(method, rest, path, b"", headers))
            if route is not None:
                lookup = route if isinstance(route, Lookup) else None
                operation = route if isinstance(route, Operation) else None
                target = Target(self._providers.get(name), protocol, operation, lookup, rest)
                if method == "POST":
                    if len(self._targets) >= _KNOWN_PATHS:
                        self._targets.clear()
                    self._targets[path] = target
                return target
        return None

    async def _unknown(self, scope: Scope, exchange: Exchange) -> None:
        refusal = Refusal(404, f"Unknown request URL: {scope['method']} {scope['path']}.", code="unknown_url")
        await _respond(exchange, 404, PROTOCOLS[-1].write_refusal(refusal, f"req_{next(self._serial):08x}"))

    async def _look_up(self, target: Target, lookup: Lookup, head: Head, exchange: Exchange) -> None:
        provider = target.provider
        try:
            if lookup.needs_credential:
                authorise(target, head)
            if provider.settings.lookup_error is not None:
                raise Refused(Refusal(provider.settings.lookup_error, "The emulator was told to fail."))
            found = lookup.answer(head, provider.models, provider.jobs)
        except Refused as refused:
            body = target.protocol.write_refusal(refused.refusal, f"req_{next(self._serial):08x}")
            await _respond(exchange, refused.refusal.status, body)
            return
        await _respond(exchange, 200, found.body, found.content_type)

    async def _call(self, target: Target, operation: Operation[Any], head: Head, exchange: Exchange) -> None:
        """A call arrives when the whole of its request has been read, and from then on counts as parallel."""
        body = await exchange.read(BODY_LIMIT_BYTES)
        provider, serial = target.provider, f"{next(self._serial):08x}"
        prepared = prepare(target, operation, head, body, serial)
        plan, call = prepared.plan, prepared.call
        tokens = plan.tokens if plan else 0
        breaches, now = await _judge(provider, tokens) if operation.limited else ((), provider.clock.now())
        entry = provider.record.begin(
            now,
            id=f"req_{serial}",
            key=prepared.key,
            protocol=target.protocol.name,
            operation=operation.name,
            model=call.model if call else None,
            stream=call.stream if call else False,
        )
        for breach in breaches:
            provider.record.violated(breach, entry)
        refusal, refused_as = prepared.refusal, Outcome.REFUSED
        rejected = bool(breaches) and provider.settings.enforce == "reject"
        counted = operation.limited and not rejected
        if counted:
            provider.enforcement.admit(now, tokens)
        elif rejected:
            refusal, refused_as = _limited(breaches, provider), Outcome.LIMITED
        outcome = Outcome.ABANDONED
        try:
            if refusal is not None:
                await refuse(exchange, target.protocol, refusal, entry)
                outcome = refused_as
            elif call and plan and prepared.behaviour:
                if plan.refusal is None:
                    entry.served = plan.answer.usage
                    if isinstance(call, VideoCall):
                        _start_job(provider, call, plan.answer, prepared.behaviour)
                delivery = Delivery(exchange, target.protocol, operation, call, plan, prepared.behaviour, entry)
                outcome = await delivery.run()
        finally:
            if counted:
                provider.enforcement.leave()
            provider.record.end(entry, provider.clock.now(), outcome)


def _start_job(provider: VirtualProvider, call: VideoCall, answer: Answer, behaviour: Behaviour) -> None:
    provider.jobs.add(
        Job(
            id=answer.id,
            model=call.model,
            prompt=call.last_text,
            seconds=call.seconds,
            size=call.size,
            created=answer.created,
            polls_needed=behaviour.job_polls,
            fails=behaviour.job_fails,
            poll_errors=behaviour.job_poll_errors,
            file_bytes=behaviour.job_file_bytes,
        )
    )
    if behaviour.job_fails:
        answer.usage.seconds = 0


async def _respond(exchange: Exchange, status: int, body: bytes, content_type: bytes = JSON_TYPE) -> None:
    await exchange.respond(status, [(b"content-type", content_type)], body)


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
