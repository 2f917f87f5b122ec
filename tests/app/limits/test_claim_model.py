"""claim_requests against a model of it in plain Python, over random histories."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from app.db.pool import Connection
from app.limits import repository
from app.limits.records import ClaimedRequest
from app.limits.replay import LimitSetting, replay
from app.requests.records import Outcome
from tests.app.limits.queue import START, Queue

SPAN = timedelta(seconds=60.6)
LEASE = timedelta(seconds=20)
STEPS = 120


@dataclass
class Waiting:
    id: str
    age: int
    priority: int
    tokens: int
    max_attempts: int
    deadline: datetime | None
    available_at: datetime
    attempts: int = 0


@dataclass
class Started:
    at: datetime
    tokens: int


@dataclass
class Model:
    """What the limits admit, straight from their definition."""

    parallel: int = 3
    requests: int = 6
    tokens: int | None = 1000
    enabled: bool = True
    now: datetime = START
    waiting: list[Waiting] = field(default_factory=list)
    running: dict[str, tuple[Waiting, datetime, Started]] = field(default_factory=dict)
    starts: list[Started] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)

    def claim(self, capacity: int) -> set[str]:
        self._take_back()
        window = [start for start in self.starts if start.at > self.now - SPAN]
        room = min(capacity, self.parallel - len(self.running), self.requests - len(window))
        if not self.enabled or room <= 0:
            return set()
        fitting = [one for one in self.waiting if one.available_at <= self.now]
        if self.tokens is not None:
            fitting = [one for one in fitting if one.tokens <= self.tokens]
        admitted: list[Waiting] = []
        used = sum(start.tokens for start in window)
        for one in sorted(fitting, key=lambda one: (-one.priority, one.age))[:room]:
            used += one.tokens
            if self.tokens is not None and used > self.tokens:
                break
            admitted.append(one)
        for one in admitted:
            one.attempts += 1
            self.waiting.remove(one)
            self.starts.append(Started(self.now, one.tokens))
            self.running[one.id] = (one, self.now + LEASE, self.starts[-1])
        return {one.id for one in admitted}

    def _take_back(self) -> None:
        for one, ends, _ in list(self.running.values()):
            if ends <= self.now:
                del self.running[one.id]
                if one.attempts >= one.max_attempts:
                    self.failed.add(one.id)
                else:
                    one.available_at = self.now
                    self.waiting.append(one)
        for one in [one for one in self.waiting if one.deadline is not None and one.deadline <= self.now]:
            self.waiting.remove(one)
            self.failed.add(one.id)

    def finish(self, id: str, outcome: Outcome, settled: int | None, retry_seconds: int) -> None:
        one, _, start = self.running.pop(id)
        if settled is not None:
            start.tokens = settled
        if outcome in (Outcome.RETRY, Outcome.RELEASED):
            one.attempts -= outcome is Outcome.RELEASED
            one.available_at = self.now + timedelta(seconds=retry_seconds)
            self.waiting.append(one)


class History:
    def __init__(self, queue: Queue, chosen: random.Random) -> None:
        self.queue = queue
        self.random = chosen
        self.model = Model()
        self.held: dict[str, ClaimedRequest] = {}
        self.settings = [self._setting()]

    async def step(self) -> None:
        action = self.random.choices([self.submit, self.claim, self.finish, self.wait, self.edit], [3, 5, 4, 3, 1])[0]
        await action()

    async def submit(self) -> None:
        for _ in range(self.random.randint(1, 3)):
            one = Waiting(
                "",
                0,
                self.random.randint(-1, 1),
                self.random.choice([0, 10, 200, 700]),
                self.random.randint(1, 3),
                self.model.now + timedelta(seconds=self.random.randint(1, 90)) if self.random.random() < 0.2 else None,
                START - timedelta(days=2),
            )
            values = {"priority": one.priority, "reserved_tokens": one.tokens, "max_attempts": one.max_attempts}
            [one.id] = await self.queue.submit(deadline=one.deadline, **values)
            one.age = await self.queue.connection.fetchval("SELECT sequence FROM model_requests WHERE id = $1", one.id)
            self.model.waiting.append(one)

    async def claim(self) -> None:
        capacity = self.random.choice([1, 2, 100])
        claim = await self.queue.claim(self.model.now, capacity=capacity, lease_seconds=LEASE.total_seconds())
        assert {one.request_id for one in claim.requests} == self.model.claim(capacity)
        self.held |= {one.request_id: one for one in claim.requests}

    async def finish(self) -> None:
        if not self.model.running:
            return
        id = self.random.choice(sorted(self.model.running))
        outcome = self.random.choice([Outcome.COMPLETED, Outcome.FAILED, Outcome.RETRY, Outcome.RELEASED])
        settled = 0 if outcome is Outcome.RELEASED else self.random.choice([None, 0, 5, 250])
        retry_seconds = self.random.randint(0, 30) if outcome is Outcome.RETRY else 0
        finished = await self.queue.finish(
            [self.held[id]], outcome, settled_tokens=settled, retry_seconds=retry_seconds
        )
        assert list(finished) == [id]
        self.model.finish(id, outcome, settled, retry_seconds)

    async def wait(self) -> None:
        self.model.now += self.random.choice([timedelta(microseconds=1), timedelta(seconds=7), LEASE, SPAN / 2])
        await self.queue.set_clock(self.model.now)

    async def edit(self) -> None:
        # A start of this very instant was made under the old limits.
        self.model.now += timedelta(microseconds=1)
        await self.queue.set_clock(self.model.now)
        self.model.parallel = self.random.randint(1, 5)
        self.model.requests = self.random.randint(1, 10)
        self.model.tokens = self.random.choice([None, 300, 1000])
        self.model.enabled = self.random.random() < 0.9
        await self.queue.edit(**self.columns())
        self.settings.append(self._setting())

    def columns(self) -> dict[str, Any]:
        return {
            "max_parallel_requests": self.model.parallel,
            "requests_per_minute": self.model.requests,
            "tokens_per_minute": self.model.tokens,
            "is_enabled": self.model.enabled,
        }

    def _setting(self) -> LimitSetting:
        return LimitSetting(self.model.now, self.model.parallel, self.model.requests, self.model.tokens)


@pytest.mark.parametrize("seed", range(4))
async def test_the_database_admits_exactly_what_the_model_admits(connection: Connection, seed: int) -> None:
    queue = await Queue.create(connection)
    history = History(queue, random.Random(seed))
    await queue.edit(**history.columns())
    for _ in range(STEPS):
        await history.step()
    rows = await connection.fetch("SELECT id FROM model_requests WHERE status = 'PENDING'")
    assert {row["id"] for row in rows} == {one.id for one in history.model.waiting}
    starts = await repository.read_starts(connection, queue.row.provider_id)
    assert [start.tokens for start in starts] == [start.tokens for start in history.model.starts]
    found = replay(starts, history.settings, window=SPAN)
    # What a call used beyond its reservation comes to light after its start, and a running call outlasts an edit.
    assert [violation for violation in found if violation.kind == "requests"] == []
