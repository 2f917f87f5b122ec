"""Carries out a plan on one exchange: the delay, then the answer, the error or the fault."""

from __future__ import annotations

from typing import Any

from app.providers.emulator.behaviour import Behaviour, Fault
from app.providers.emulator.exchange import Exchange, Headers
from app.providers.emulator.plan import Plan
from app.providers.emulator.record import Outcome, RecordedCall
from app.providers.emulator.wire import JSON_TYPE, Body, Call, Operation, Refusal, WireProtocol

_JSON_HEADER = (b"content-type", JSON_TYPE)
_NO_CACHE = (b"cache-control", b"no-cache")


async def refuse(exchange: Exchange, protocol: WireProtocol, refusal: Refusal, entry: RecordedCall) -> None:
    headers: Headers = [_JSON_HEADER, (protocol.request_id_header, entry.id.encode())]
    if refusal.retry_after is not None:
        after = refusal.retry_after
        headers.append((b"retry-after", (after if isinstance(after, str) else f"{after:g}").encode("latin-1")))
    if refusal.retry_after_ms is not None:
        headers.append((b"retry-after-ms", b"%d" % refusal.retry_after_ms))
    body = protocol.write_refusal(refusal, entry.id)
    entry.status = refusal.status
    await exchange.respond(refusal.status, headers, body)


class Delivery:
    """Of one planned call. `entry` gets the status as soon as it is sent."""

    __slots__ = ("_behaviour", "_call", "_entry", "_exchange", "_operation", "_plan", "_protocol")

    def __init__(
        self,
        exchange: Exchange,
        protocol: WireProtocol,
        operation: Operation[Any],
        call: Call,
        plan: Plan,
        behaviour: Behaviour,
        entry: RecordedCall,
    ) -> None:
        self._exchange = exchange
        self._protocol = protocol
        self._operation = operation
        self._call = call
        self._plan = plan
        self._behaviour = behaviour
        self._entry = entry

    async def run(self) -> Outcome:
        """Raises ClientGone."""
        plan = self._plan
        if plan.delay_seconds:
            await self._exchange.pause(plan.delay_seconds)
        if plan.refusal is not None:
            await refuse(self._exchange, self._protocol, plan.refusal, self._entry)
            return Outcome.FAILED
        if plan.fault is not None:
            await self._fail(plan.fault)
            return Outcome.FAILED
        body = self._operation.write(self._call, plan.answer)
        await self._start(body)
        if plan.chunk_seconds:
            await self._send_all(body.parts, plan.chunk_seconds)
        else:
            await self._exchange.write(b"".join(body.parts), more=False)
            self._entry.parts_sent = self._entry.parts
        return Outcome.ANSWERED

    async def _fail(self, fault: Fault) -> None:
        if fault is Fault.DISCONNECT:
            await self._exchange.break_off()
            return
        if fault is Fault.HANG:
            await self._exchange.pause(None)
        body = self._operation.write(self._call, self._plan.answer)
        if fault in (Fault.DISCONNECT_MIDWAY, Fault.HANG_MIDWAY, Fault.ERROR_MIDWAY):
            await self._start(body)
            await self._stop_midway(fault, body)
            return
        pause = self._plan.chunk_seconds
        if fault is Fault.EMPTY_BODY:
            body.parts = []
        elif fault is Fault.INVALID_JSON:
            body.parts = _spoilt(body.parts)
        elif fault is Fault.TRICKLE:
            pause = self._behaviour.trickle_ms / 1000
            body.parts = [bytes((byte,)) for part in body.parts for byte in part]
        elif fault is Fault.HUGE_BODY:
            # Generated text is huge already; any other JSON may end with as much space as one likes.
            missing = self._behaviour.huge_body_bytes - sum(map(len, body.parts))
            body.parts[-1] += b" " * max(0, missing)
        await self._start(body)
        await self._send_all(body.parts, pause)

    async def _stop_midway(self, fault: Fault, body: Body) -> None:
        parts = body.parts
        half = parts[: len(parts) // 2] if body.streamed else [parts[0][: len(parts[0]) // 2]]
        if self._plan.chunk_seconds and body.streamed:
            await self._send_all(half, self._plan.chunk_seconds, ends=False)
            await self._exchange.pause(self._plan.chunk_seconds)
            half = []
        event = self._broken(fault, body)
        await self._exchange.write(b"".join(half) + (event or b""), more=event is None)
        self._entry.parts_sent = len(parts) // 2
        if event is not None:
            return
        if fault is Fault.HANG_MIDWAY:
            await self._exchange.pause(None)
        await self._exchange.break_off()

    def _broken(self, fault: Fault, body: Body) -> bytes | None:
        """The event that a stream turns into; None where the protocol has none."""
        if fault is not Fault.ERROR_MIDWAY or not body.streamed:
            return None
        message = self._behaviour.error_message or "The emulator was told to fail in the stream."
        refusal = Refusal(self._behaviour.error or 500, message)
        return self._operation.write_broken_stream(self._call, refusal, self._entry.id)

    async def _start(self, body: Body) -> None:
        headers = [(b"content-type", body.content_type), (self._protocol.request_id_header, self._entry.id.encode())]
        if body.streamed:
            headers.append(_NO_CACHE)
        else:
            headers.append((b"content-length", b"%d" % sum(map(len, body.parts))))
        self._entry.status = 200
        self._entry.parts = len(body.parts)
        await self._exchange.start(200, headers)

    async def _send_all(self, parts: list[bytes], pause_seconds: float, *, ends: bool = True) -> None:
        last = len(parts) - 1 if ends else len(parts)
        for position, part in enumerate(parts):
            if pause_seconds and position:
                await self._exchange.pause(pause_seconds)
            await self._exchange.write(part, more=position < last)
            self._entry.parts_sent = position + 1
        if not parts:
            await self._exchange.write(b"", more=not ends)


def _spoilt(parts: list[bytes]) -> list[bytes]:
    """The middle part cut short, so that its JSON does not parse; an event still ends as an event does."""
    middle = len(parts) // 2
    part = parts[middle]
    end = next((end for end in (b"\r\n\r\n", b"\n\n") if part.endswith(end)), b"")
    return [*parts[:middle], part[: len(part) // 2] + end, *parts[middle + 1 :]]
