"""Carries out a plan on one exchange: the delay, then the answer, the error or the fault."""

from __future__ import annotations

from typing import Any

from app.providers.emulator.behaviour import Behaviour, Fault
from app.providers.emulator.exchange import Exchange, Headers
from app.providers.emulator.plan import Plan
from app.providers.emulator.record import Outcome, RecordedCall
from app.providers.emulator.wire import Call, Refusal, WireProtocol

JSON_TYPE = (b"content-type", b"application/json")
_STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


async def refuse(
    exchange: Exchange, protocol: WireProtocol[Any], refusal: Refusal, entry: RecordedCall, request_id: bytes
) -> None:
    headers: Headers = [JSON_TYPE, (protocol.request_id_header, request_id)]
    if refusal.retry_after is not None:
        after = refusal.retry_after
        headers.append((b"retry-after", (after if isinstance(after, str) else f"{after:g}").encode("latin-1")))
    if refusal.retry_after_ms is not None:
        headers.append((b"retry-after-ms", b"%d" % refusal.retry_after_ms))
    body = protocol.write_refusal(refusal)
    entry.status = refusal.status
    await exchange.respond(refusal.status, headers, body)


class Delivery:
    """Of one planned call. `entry` gets the status as soon as it is sent."""

    __slots__ = ("_behaviour", "_call", "_entry", "_exchange", "_plan", "_protocol", "_request_id")

    def __init__(
        self,
        exchange: Exchange,
        protocol: WireProtocol[Any],
        call: Call,
        plan: Plan,
        behaviour: Behaviour,
        entry: RecordedCall,
        request_id: bytes,
    ) -> None:
        self._exchange = exchange
        self._protocol = protocol
        self._call = call
        self._plan = plan
        self._behaviour = behaviour
        self._entry = entry
        self._request_id = request_id

    async def run(self) -> Outcome:
        """Raises ClientGone."""
        plan = self._plan
        if plan.delay_seconds:
            await self._exchange.pause(plan.delay_seconds)
        if plan.refusal is not None:
            await refuse(self._exchange, self._protocol, plan.refusal, self._entry, self._request_id)
            return Outcome.FAILED
        if plan.fault is not None:
            await self._fail(plan.fault)
            return Outcome.FAILED
        if self._call.stream:
            events = self._protocol.write_stream(self._call, plan.answer)
            await self._start(None)
            await self._send_all(events if plan.chunk_seconds else [b"".join(events)], plan.chunk_seconds)
        else:
            body = self._protocol.write(self._call, plan.answer)
            await self._start(len(body))
            await self._exchange.write(body, more=False)
        return Outcome.ANSWERED

    async def _fail(self, fault: Fault) -> None:
        if fault is Fault.DISCONNECT:
            await self._exchange.break_off()
            return
        if fault is Fault.HANG:
            await self._exchange.pause(None)
        parts = self._parts()
        length = None if self._call.stream else sum(map(len, parts))
        if fault in (Fault.DISCONNECT_MIDWAY, Fault.HANG_MIDWAY, Fault.ERROR_MIDWAY):
            await self._start(length)
            await self._stop_midway(fault, parts)
            return
        pause = self._plan.chunk_seconds
        if fault is Fault.EMPTY_BODY:
            parts = []
        elif fault is Fault.INVALID_JSON:
            parts = _spoilt(parts)
        elif fault is Fault.TRICKLE:
            pause = self._behaviour.trickle_ms / 1000
            parts = [bytes((byte,)) for part in parts for byte in part]
        await self._start(None if self._call.stream else sum(map(len, parts)))
        await self._send_all(parts, pause)

    async def _stop_midway(self, fault: Fault, parts: list[bytes]) -> None:
        half = b"".join(parts[: len(parts) // 2]) if self._call.stream else parts[0][: len(parts[0]) // 2]
        if fault is Fault.ERROR_MIDWAY and self._call.stream:
            message = self._behaviour.error_message or "The emulator was told to fail in the stream."
            half += self._protocol.write_stream_refusal(Refusal(self._behaviour.error or 500, message))
            await self._exchange.write(half, more=False)
            return
        await self._exchange.write(half, more=True)
        if fault is Fault.HANG_MIDWAY:
            await self._exchange.pause(None)
        await self._exchange.break_off()

    def _parts(self) -> list[bytes]:
        if self._call.stream:
            return self._protocol.write_stream(self._call, self._plan.answer)
        return [self._protocol.write(self._call, self._plan.answer)]

    async def _start(self, length: int | None) -> None:
        id_header = (self._protocol.request_id_header, self._request_id)
        self._entry.status = 200
        if self._call.stream:
            await self._exchange.start(200, [*_STREAM_HEADERS, id_header])
        else:
            await self._exchange.start(200, [JSON_TYPE, id_header, (b"content-length", b"%d" % (length or 0))])

    async def _send_all(self, parts: list[bytes], pause_seconds: float) -> None:
        last = len(parts) - 1
        for position, part in enumerate(parts):
            if pause_seconds and position:
                await self._exchange.pause(pause_seconds)
            await self._exchange.write(part, more=position < last)
        if not parts:
            await self._exchange.write(b"", more=False)


def _spoilt(parts: list[bytes]) -> list[bytes]:
    """The middle part cut short, so that its JSON does not parse; an event still ends as an event does."""
    middle = len(parts) // 2
    part = parts[middle]
    end = b"\n\n" if part.endswith(b"\n\n") else b""
    return [*parts[:middle], part[: len(part) // 2] + end, *parts[middle + 1 :]]
