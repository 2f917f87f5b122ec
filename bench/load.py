"""A load generator in a process of its own: keep-alive connections, one request at a time on each.

`python -m bench.load` reads a Plan as JSON from stdin and writes a Result as JSON to stdout. Each answer is checked:
status 200, no errors, and the text that its request expects.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import uvloop

SERIAL = "#########"
"""In a body, this is replaced by a number that no other request has."""
_CHUNKED = -1
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`bodies` are sent in turn, over and over; `expected` holds for each a text that its answer must contain."""

    port: int
    bodies: Sequence[str]
    expected: Sequence[str]
    seconds: float
    warmup_seconds: float = 0.3
    connections: int = 16
    first_serial: int = 0
    path: str = "/graphql"
    token: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    answers: int
    seconds: float
    sent: int
    """With those of the warm-up."""
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        return self.answers / self.seconds


@dataclass(slots=True)
class _Run:
    plan: Plan
    requests: list[tuple[bytes, ...]]
    expected: list[bytes]
    starts_at: float = 0.0
    ends_at: float = 0.0
    last_answer_at: float = 0.0
    sent: int = 0
    open_connections: int = 0
    latencies: list[float] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str | None = None

    def next_request(self) -> tuple[bytes, bytes]:
        index = self.sent % len(self.requests)
        parts = self.requests[index]
        number = self.plan.first_serial + self.sent
        self.sent += 1
        request = parts[0] if len(parts) == 1 else b"%b%09d%b" % (parts[0], number, parts[1])
        return request, self.expected[index]

    def fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self.done.set()


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._answer = b""
        self._expected = b""
        self._missing = 0
        self._sent_at = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._run.open_connections += 1
        self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._run.done.is_set():
            self._run.fail("the server closed a connection")

    def data_received(self, data: bytes) -> None:
        if self._answer:
            data = self._answer + data
        if self._missing == 0:
            head_end = data.find(b"\r\n\r\n")
            if head_end < 0:
                self._answer = data
                return
            length = _content_length(data[:head_end])
            self._missing = _CHUNKED if length is None else head_end + 4 + length
        if not data.endswith(_LAST_CHUNK) if self._missing == _CHUNKED else len(data) < self._missing:
            self._answer = data
            return
        self._answer = b""
        self._missing = 0
        self._take(data)

    def _take(self, answer: bytes) -> None:
        run = self._run
        now = time.perf_counter()
        if not answer.startswith(b"HTTP/1.1 200") or b'"errors"' in answer or self._expected not in answer:
            run.fail(f"expected {self._expected!r}, got {answer[:600]!r}")
            return
        if now < run.ends_at:
            if self._sent_at >= run.starts_at:
                run.latencies.append(now - self._sent_at)
                run.last_answer_at = now
            self._send()
            return
        run.open_connections -= 1
        if run.open_connections == 0:
            run.done.set()

    def _send(self) -> None:
        request, self._expected = self._run.next_request()
        self._sent_at = time.perf_counter()
        self._transport.write(request)


def _content_length(head: bytes) -> int | None:
    """None: the body comes in chunks."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
        if name.lower() == b"transfer-encoding" and value.strip().lower() == b"chunked":
            return None
    raise ValueError(f"no content-length in {head!r}")


def _request(plan: Plan, body: str) -> tuple[bytes, ...]:
    more = {**({"authorization": f"Bearer {plan.token}"} if plan.token else {}), **plan.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in more.items())
    head = (
        f"POST {plan.path} HTTP/1.1\r\nhost: 127.0.0.1:{plan.port}\r\ncontent-type: application/json\r\n"
        f"accept: application/json\r\n{lines}content-length: {len(body.encode())}\r\n\r\n"
    )
    before, found, after = body.partition(SERIAL)
    return (f"{head}{before}".encode(), after.encode()) if found else (f"{head}{body}".encode(),)


async def _generate(plan: Plan) -> Result:
    run = _Run(plan, [_request(plan, body) for body in plan.bodies], [text.encode() for text in plan.expected])
    loop = asyncio.get_running_loop()
    run.starts_at = time.perf_counter() + plan.warmup_seconds
    run.ends_at = run.starts_at + plan.seconds
    transports = [
        (await loop.create_connection(lambda: _Connection(run), "127.0.0.1", plan.port))[0]
        for _ in range(plan.connections)
    ]
    async with asyncio.timeout(plan.warmup_seconds + plan.seconds + 30):
        await run.done.wait()
    for transport in transports:
        transport.close()
    if run.failure is not None:
        raise SystemExit(run.failure)
    if not run.latencies:
        raise SystemExit("nothing was answered")
    ordered = sorted(run.latencies)
    return Result(
        answers=len(ordered),
        seconds=run.last_answer_at - run.starts_at,
        sent=run.sent,
        p50_ms=ordered[len(ordered) // 2] * 1000,
        p99_ms=ordered[len(ordered) * 99 // 100] * 1000,
    )


def generate(plan: Plan) -> Result:
    """Runs the plan in a process of its own. Raises RuntimeError where an answer was wrong."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"], input=json.dumps(asdict(plan)).encode(), capture_output=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"the load generator failed: {done.stderr.decode()[-2000:]}")
    return Result(**json.loads(done.stdout))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(uvloop.run(_generate(Plan(**json.load(sys.stdin)))))))
