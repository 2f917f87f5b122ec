"""submit_and_claim, which starts what it can as it writes it, against submitting first and claiming then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.db.ids import new_id
from app.db.pool import Connection, Database
from app.limits import repository as limits
from app.limits.records import Claim
from app.limits.replay import LimitSetting, replay
from app.requests import repository as requests
from app.requests.records import AttemptResult, ModelOperation, NewRequest, Outcome
from tests.app.limits.queue import HELLO, LEASE_SECONDS, START, after
from tests.catalog_rows import CatalogRow, insert_model

ME, OTHER, GONE = "owner-me", "owner-other", "owner-gone"


@dataclass(frozen=True)
class Provider:
    parallel: int
    requests: int
    tokens: int | None
    is_enabled: bool
    circuit_until: datetime | None
    past_starts: tuple[tuple[float, int], ...]
    """Seconds before START, and tokens."""


@dataclass(frozen=True)
class Row:
    provider: int
    priority: int
    tokens: int
    deadline: datetime | None
    fallback: int | None


@dataclass(frozen=True)
class Present:
    """A row that is there already; it runs where its lease has an end."""

    row: Row
    owner: str | None
    lease_ends: datetime | None
    available_at: datetime


@dataclass(frozen=True)
class Scene:
    providers: tuple[Provider, ...]
    present: tuple[Present, ...]
    new: tuple[Row, ...]
    capacity: int


def _tuples(of: st.SearchStrategy[Any], *, least: int = 0, most: int) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, min_size=least, max_size=most).map(tuple)


_PROVIDERS = st.builds(
    Provider,
    parallel=st.integers(1, 5),
    requests=st.integers(1, 8),
    tokens=st.sampled_from([None, None, 300, 1000]),
    is_enabled=st.sampled_from([True, True, True, False]),
    circuit_until=st.sampled_from([None, None, None, after(20), after(-1)]),
    past_starts=_tuples(
        st.tuples(st.sampled_from([70.0, 60.7, 60.5, 1.0, 0.0]), st.sampled_from([0, 100])), most=3
    ).map(lambda starts: tuple(sorted(starts, reverse=True))),
)
_ROWS = st.builds(
    Row,
    provider=st.integers(0, 1),
    priority=st.integers(-1, 1),
    tokens=st.sampled_from([0, 100, 100, 250, 700]),
    deadline=st.sampled_from([None, None, None, after(-1), after(0), after(60)]),
    fallback=st.sampled_from([None, None, None, 0, 1]),
)
_PRESENT = st.builds(
    Present,
    row=_ROWS,
    owner=st.sampled_from([None, ME, OTHER, GONE]),
    lease_ends=st.sampled_from([None, after(10), after(0)]),
    available_at=st.sampled_from([after(-100), after(0), after(5)]),
)
_SCENES = st.builds(
    Scene,
    providers=_tuples(_PROVIDERS, least=2, most=2),
    present=st.one_of(st.just(()), _tuples(_PRESENT, most=3)),
    new=_tuples(_ROWS, least=1, most=6),
    capacity=st.integers(0, 6),
)


_ROOMY = Provider(parallel=5, requests=8, tokens=300, is_enabled=True, circuit_until=None, past_starts=())
_NEVER_FITS_AT_THE_HEAD = Scene(
    (_ROOMY, _ROOMY), (), tuple(Row(0, 0, tokens, None, None) for tokens in (700, 100, 250, 100)), capacity=6
)


def _request(row: CatalogRow, *, tokens: int) -> NewRequest:
    return NewRequest(
        id=new_id(),
        workspace_id="default",
        provider_id=row.provider_id,
        model_id=row.model_id,
        model_ref=row.ref,
        operation=ModelOperation.CHAT,
        priority=0,
        idempotency_key=None,
        request_digest=None,
        deadline=None,
        owner_id=None,
        is_streamed=False,
        fallbacks="",
        payload=HELLO,
        parameters={"temperature": 0},
        metadata={"a": "b"},
        reserved_tokens=tokens,
        max_attempts=3,
        created_by="token",
    )


class Stage:
    """A scene as rows of a database."""

    def __init__(self, connection: Connection, scene: Scene) -> None:
        self.connection = connection
        self.scene = scene
        self.rows: list[CatalogRow] = []
        self.new: list[NewRequest] = []

    async def set_up(self) -> None:
        for number, provider in enumerate(self.scene.providers):
            self.rows.append(await self._add_provider(f"provider-{number}", provider))
        await self.connection.executemany(
            "INSERT INTO owner_processes (id, expires_at) VALUES ($1, $2)", [(ME, after(10)), (OTHER, after(10))]
        )
        for present in self.scene.present:
            await self._add_present(present)
        self.new = [self._request(row, None) for row in self.scene.new]

    async def _add_provider(self, name: str, provider: Provider) -> CatalogRow:
        row = await insert_model(
            self.connection,
            provider=name,
            max_parallel=provider.parallel,
            requests_per_minute=provider.requests,
            tokens_per_minute=provider.tokens,
        )
        await self.connection.execute(
            "UPDATE llm_providers SET is_enabled = $2 WHERE id = $1", row.provider_id, provider.is_enabled
        )
        await self.connection.execute(
            "UPDATE limit_states SET clock = $2, circuit_open_until = $3 WHERE provider_id = $1",
            row.provider_id,
            START,
            provider.circuit_until,
        )
        for seconds, tokens in provider.past_starts:
            await self._add_start(row.provider_id, "past", "lease", after(-seconds), tokens)
        return row

    async def _add_start(self, provider_id: str, request_id: str, lease_id: str, at: datetime, tokens: int) -> int:
        sequence: int = await self.connection.fetchval(
            """
            WITH counted AS (
              UPDATE limit_states SET last_sequence = last_sequence + 1, window_tokens = window_tokens + $5
               WHERE provider_id = $1 RETURNING last_sequence
            )
            INSERT INTO provider_starts (provider_id, sequence, request_id, lease_id, started_at, reserved_tokens)
            SELECT $1, last_sequence, $2, $3, $4, $5 FROM counted RETURNING sequence
            """,
            provider_id,
            request_id,
            lease_id,
            at,
            tokens,
        )
        return sequence

    async def _add_present(self, present: Present) -> None:
        request = self._request(present.row, present.owner)
        await requests.insert_requests(self.connection, [request])
        attempts = 1 if present.available_at > START or present.lease_ends is not None else 0
        await self.connection.execute(
            "UPDATE model_requests SET available_at = $2, attempt_count = $3 WHERE id = $1",
            request.id,
            present.available_at,
            attempts,
        )
        if present.lease_ends is None:
            return
        lease_id = new_id()
        sequence = await self._add_start(request.provider_id, request.id, lease_id, after(0), request.reserved_tokens)
        await self.connection.execute(
            """
            UPDATE model_requests SET status = 'PROCESSING', lease_id = $2, lease_expires_at = $3, worker_id = 'w',
                                      lease_started_at = $4, started_at = $4, start_sequence = $5
             WHERE id = $1
            """,
            request.id,
            lease_id,
            present.lease_ends,
            after(-10),
            sequence,
        )

    def _request(self, row: Row, owner: str | None) -> NewRequest:
        return _request(self.rows[row.provider], tokens=row.tokens)._replace(
            priority=row.priority,
            deadline=row.deadline,
            owner_id=owner,
            fallbacks="" if row.fallback is None else self.rows[row.fallback].model_id,
        )

    async def submit_and_claim(self) -> dict[str, Claim]:
        return await requests.submit_and_claim(
            self.connection, self.new, owner_id=ME, capacity=self.scene.capacity, lease_seconds=LEASE_SECONDS
        )

    async def submit_then_claim(self) -> dict[str, Claim]:
        # Of one group, what goes to the first provider is the oldest.
        rows = sorted((row._replace(owner_id=ME) for row in self.new), key=lambda row: row.provider_id)
        await requests.insert_requests(self.connection, rows)
        claims = {}
        for provider_id in sorted({row.provider_id for row in self.new}):
            claim = await limits.claim_requests(
                self.connection,
                provider_id,
                worker_id=ME,
                capacity=self.scene.capacity,
                lease_seconds=LEASE_SECONDS,
                owner_id=ME,
            )
            assert claim is not None
            claims[provider_id] = claim
        return claims

    async def told(self, claims: dict[str, Claim]) -> dict[str, Any]:
        """What came of it, but for what is drawn at random or read from the server's clock."""
        tables = {
            "requests": "SELECT to_jsonb(r) - 'lease_id' - 'sequence' FROM model_requests r ORDER BY id",
            "age": "SELECT id FROM model_requests ORDER BY provider_id, sequence",
            "starts": "SELECT to_jsonb(s) - 'lease_id' FROM provider_starts s ORDER BY provider_id, sequence",
            "leases": "SELECT r.id FROM model_requests r JOIN provider_starts s ON s.provider_id = r.provider_id"
            " AND s.sequence = r.start_sequence AND s.request_id = r.id AND s.lease_id = r.lease_id ORDER BY r.id",
            "attempts": "SELECT to_jsonb(a) - 'lease_id' FROM request_attempts a ORDER BY request_id, number",
            "states": "SELECT to_jsonb(t) FROM limit_states t ORDER BY provider_id",
        }
        told: dict[str, Any] = {
            name: [row[0] for row in await self.connection.fetch(statement)] for name, statement in tables.items()
        }
        for provider_id, claim in claims.items():
            admitted = sorted(claim.requests, key=lambda one: one.request_id)
            told[f"claim of {provider_id}"] = [
                [(one.request_id, one.attempt, one.max_attempts, one.model_ref, one.started_at) for one in admitted],
                [(one.deadline, one.reserved_tokens, one.has_fallback, one.created_at) for one in admitted],
                [(one.payload, one.parameters, one.is_streamed, one.model_id, one.workspace_id) for one in admitted],
                claim.permits_left,
                claim.catalog_revision,
                claim.wait_seconds is None or round(claim.wait_seconds - (START - datetime.now(UTC)).total_seconds()),
            ]
        return told


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(scene=_SCENES)
@example(scene=_NEVER_FITS_AT_THE_HEAD)
async def test_one_statement_does_what_a_submission_and_a_claim_do(connection: Connection, scene: Scene) -> None:
    async with _undone(connection):
        stage = Stage(connection, scene)
        await stage.set_up()
        async with _undone(connection):
            expected = await stage.told(await stage.submit_then_claim())
        async with _undone(connection):
            assert await stage.told(await stage.submit_and_claim()) == expected


@asynccontextmanager
async def _undone(connection: Connection) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


async def test_eight_submitters_at_once_never_exceed_a_limit(database: Database) -> None:
    async with database.connection() as connection:
        row = await insert_model(connection, max_parallel=5, tokens_per_minute=4100)
        for number in range(8):
            await requests.keep_owner(connection, f"owner-{number}", seconds=60)
    finished: set[str] = set()

    async def work(owner_id: str) -> None:
        async with database.connection() as connection:
            for _ in range(10):
                new = _request(row, tokens=100)
                claims = await requests.submit_and_claim(
                    connection, [new], owner_id=owner_id, capacity=2, lease_seconds=60
                )
                claim: Claim | None = claims[row.provider_id]
                # What was submitted before may start with it, or later.
                while claim is not None:
                    results = [
                        AttemptResult(
                            request_id=one.request_id,
                            lease_id=one.lease_id,
                            outcome=Outcome.COMPLETED,
                            settled_tokens=50,
                        )
                        for one in claim.requests
                    ]
                    finished.update(await requests.finish_requests(connection, results))
                    if new.id in finished:
                        break
                    claim = await limits.claim_requests(
                        connection, row.provider_id, worker_id=owner_id, capacity=2, lease_seconds=60, owner_id=owner_id
                    )

    async with asyncio.timeout(30):
        await asyncio.gather(*(work(f"owner-{number}") for number in range(8)))
    async with database.connection() as connection:
        starts = await limits.read_starts(connection, row.provider_id)
        window_tokens = await connection.fetchval("SELECT window_tokens FROM limit_states")
    assert [start.sequence for start in starts] == list(range(1, 81))
    assert sorted(start.request_id for start in starts) == sorted(finished)
    assert window_tokens == 80 * 50
    setting = LimitSetting(START - timedelta(days=2), 5, 6000, 4100)
    assert replay(starts, [setting], window=timedelta(seconds=60)) == []


async def test_a_process_whose_row_ran_out_lives_as_its_submission_shows(connection: Connection) -> None:
    row = await insert_model(connection)
    before = _request(row, tokens=10)._replace(owner_id=GONE)
    await requests.insert_requests(connection, [before])
    new = _request(row, tokens=10)
    claims = await requests.submit_and_claim(connection, [new], owner_id=GONE, capacity=5, lease_seconds=60)
    assert {one.request_id for one in claims[row.provider_id].requests} == {before.id, new.id}
