"""The SQL of admission: claiming and renewing are functions in the database (migration 0003_steady_clock)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime, timedelta

from asyncpg import Record

from app.db.pool import Connection
from app.limits.forecast import Backlog, WindowStart
from app.limits.log import LimitsLine, StartLine
from app.limits.records import (
    UNKNOWN,
    Claim,
    ClaimedRequest,
    ClockReading,
    Expectation,
    LeaseId,
    LimitUsage,
    RenewedLease,
    Start,
)


async def claim_requests(
    connection: Connection,
    provider_id: str,
    *,
    worker_id: str,
    capacity: int,
    lease_seconds: float,
    owner_id: str | None = None,
    expectation: Expectation = UNKNOWN,
) -> Claim | None:
    """Admits and leases up to `capacity` requests of one provider. None where there is no such provider.

    Without `owner_id`, those that any worker may run; with it, those that its owner alone may.
    """
    rows = await connection.fetch(
        "SELECT * FROM claim_requests($1, $2, $3, $4, $5, $6, $7)",
        provider_id,
        worker_id,
        capacity,
        lease_seconds,
        owner_id,
        *expectation,
    )
    return read_claim(rows, provider_id)


def read_claim(rows: Sequence[Record], provider_id: str) -> Claim | None:
    """The rows of claim_requests as a Claim."""
    requests = []
    summary = None
    for row in rows:
        if row["request_id"] is None:
            summary = row
            continue
        requests.append(
            ClaimedRequest(
                request_id=row["request_id"],
                lease_id=LeaseId(row["lease_id"]),
                provider_id=provider_id,
                workspace_id=row["workspace_id"],
                model_id=row["model_id"],
                model_ref=row["model_ref"],
                payload=row["payload"],
                parameters=row["parameters"],
                attempt=row["attempt"],
                max_attempts=row["max_attempts"],
                deadline=row["deadline"],
                started_at=row["started_at"],
                reserved_tokens=row["reserved_tokens"],
                is_streamed=row["is_streamed"],
                has_fallback=row["has_fallback"],
                created_at=row["created_at"],
            )
        )
    if summary is None:
        return None
    return Claim(
        requests=tuple(requests),
        wait_seconds=summary["wait_seconds"],
        send_within_seconds=summary["send_within_seconds"],
        waited_seconds=summary["waited_seconds"],
        catalog_revision=summary["catalog_revision"],
        permits_left=summary["permits_left"],
    )


async def renew_leases(
    connection: Connection,
    held: Sequence[tuple[str, LeaseId]],
    *,
    lease_seconds: float,
    expectation: Expectation = UNKNOWN,
) -> list[RenewedLease]:
    """Extends what is still held; what is missing from the answer is lost."""
    rows = await connection.fetch(
        "SELECT * FROM renew_leases($1, $2, $3, $4, $5)",
        [request_id for request_id, _ in held],
        [lease_id for _, lease_id in held],
        lease_seconds,
        *expectation,
    )
    return [RenewedLease(row["request_id"], LeaseId(row["lease_id"]), row["cancel_requested"]) for row in rows]


async def read_steady_clock(connection: Connection) -> ClockReading:
    row = await connection.fetchrow(
        """
        SELECT epoch, behind_microseconds,
               (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - behind_microseconds AS told_microseconds
          FROM steady_clock
        """
    )
    assert row is not None
    return ClockReading(**row)


async def witness_clock(
    connection: Connection,
    machine_id: str,
    reading: ClockReading,
    *,
    offset_microseconds: int,
    machine_microseconds: int,
) -> tuple[int, int] | None:
    """Tells what a machine measured. Answers the epoch and the offset to go by; None where the clock was set since."""
    row = await connection.fetchrow(
        "SELECT * FROM witness_clock($1, $2, $3, $4, $5)",
        machine_id,
        reading.epoch,
        reading.behind_microseconds,
        offset_microseconds,
        machine_microseconds,
    )
    return None if row is None else (row["epoch"], row["offset_microseconds"])


async def providers_with_work(connection: Connection) -> list[str]:
    """Providers that have a request waiting or running."""
    rows = await connection.fetch(
        """
        SELECT p.id FROM llm_providers p
         WHERE EXISTS (SELECT FROM model_requests r
                        WHERE r.provider_id = p.id AND r.status = 'PENDING' AND r.owner_id IS NULL)
            OR EXISTS (SELECT FROM model_requests r
                        WHERE r.provider_id = p.id AND r.status = 'PENDING' AND r.owner_id IS NOT NULL)
            OR EXISTS (SELECT FROM model_requests r WHERE r.provider_id = p.id AND r.status = 'PROCESSING')
        """
    )
    return [row["id"] for row in rows]


async def providers_to_tidy(connection: Connection) -> list[str]:
    """Providers of which a claim would end something: a lease that ran out, a deadline, a wait at a process gone."""
    rows = await connection.fetch(
        """
        SELECT p.id FROM llm_providers p JOIN limit_states t ON t.provider_id = p.id
         CROSS JOIN LATERAL (SELECT greatest(steady_now(), t.clock) AS now) AS provider
         WHERE EXISTS (SELECT FROM model_requests
                        WHERE provider_id = p.id AND status = 'PROCESSING' AND lease_expires_at <= provider.now)
            OR EXISTS (SELECT FROM model_requests
                        WHERE provider_id = p.id AND status = 'PENDING' AND deadline <= server_time(provider.now))
            OR EXISTS (SELECT FROM model_requests r
                        WHERE provider_id = p.id AND status = 'PENDING' AND owner_id IS NOT NULL
                          AND NOT EXISTS (SELECT FROM owner_processes o
                                           WHERE o.id = r.owner_id AND o.expires_at > provider.now))
        """
    )
    return [row["id"] for row in rows]


async def read_starts(connection: Connection, provider_id: str, *, after_sequence: int = 0) -> list[Start]:
    """The start log of one provider in order, from after `after_sequence`."""
    rows = await connection.fetch(
        """
        SELECT provider_id, sequence, request_id, started_at, ended_at,
               coalesce(settled_tokens, reserved_tokens) AS tokens
          FROM provider_starts WHERE provider_id = $1 AND sequence > $2 ORDER BY sequence
        """,
        provider_id,
        after_sequence,
    )
    return [Start(**row) for row in rows]


async def limit_usage_of(connection: Connection, provider_ids: Sequence[str]) -> dict[str, LimitUsage]:
    """As a claim would count it now, without its lock."""
    rows = await connection.fetch(
        """
        SELECT t.provider_id, queue.running, queue.waiting, queue.oldest_waiting_at, recent.starts_in_window,
               recent.tokens_in_window, t.consecutive_failures, server_time(t.circuit_open_until) AS circuit_open_until
          FROM limit_states t
         -- Once, and not for each start.
         CROSS JOIN LATERAL (SELECT steady_now() AS now) provider
         CROSS JOIN LATERAL (
               SELECT count(*) FILTER (WHERE r.status = 'PROCESSING') AS running,
                      count(*) FILTER (WHERE r.status = 'PENDING') AS waiting,
                      min(r.created_at) FILTER (WHERE r.status = 'PENDING') AS oldest_waiting_at
                 FROM model_requests r
                WHERE r.provider_id = t.provider_id AND r.status IN ('PENDING', 'PROCESSING')) queue
         CROSS JOIN LATERAL (
               SELECT count(*) AS starts_in_window,
                      coalesce(sum(coalesce(s.settled_tokens, s.reserved_tokens)), 0)::bigint AS tokens_in_window
                 FROM provider_starts s
                WHERE s.provider_id = t.provider_id AND s.sequence > t.floor_sequence
                  AND s.started_at > provider.now
                      - (t.window_milliseconds + t.delivery_milliseconds) * interval '1 millisecond') recent
         WHERE t.provider_id = ANY ($1)
        """,
        list(provider_ids),
    )
    return {
        row["provider_id"]: LimitUsage(**{name: value for name, value in row.items() if name != "provider_id"})
        for row in rows
    }


async def backlog_of(connection: Connection, provider_id: str) -> Backlog | None:
    """As it stands now, without a claim's lock. None where there is no such provider."""
    row = await connection.fetchrow(
        """
        SELECT p.max_parallel_requests AS max_parallel, p.requests_per_minute, p.tokens_per_minute,
               provider.span_seconds, queue.*, recent.*,
               greatest(0, extract(epoch FROM t.circuit_open_until - provider.now))::float8 AS circuit_seconds
          FROM llm_providers p JOIN limit_states t ON t.provider_id = p.id
         CROSS JOIN LATERAL (
               SELECT greatest(steady_now(), t.clock) AS now,
                      (t.window_milliseconds + t.delivery_milliseconds) / 1000.0::float8 AS span_seconds) provider
         CROSS JOIN LATERAL (
               SELECT count(*) FILTER (WHERE r.status = 'PROCESSING') AS running,
                      count(*) FILTER (WHERE r.status = 'PENDING') AS waiting,
                      coalesce(sum(r.reserved_tokens) FILTER (WHERE r.status = 'PENDING'), 0)::bigint AS waiting_tokens
                 FROM model_requests r
                WHERE r.provider_id = p.id AND r.status IN ('PENDING', 'PROCESSING')) queue
         CROSS JOIN LATERAL (
               SELECT array_agg((extract(epoch FROM s.started_at - provider.now) + provider.span_seconds)::float8
                                ORDER BY s.sequence) AS leaves_in_seconds,
                      array_agg(coalesce(s.settled_tokens, s.reserved_tokens)::bigint ORDER BY s.sequence) AS tokens,
                      avg(extract(epoch FROM coalesce(s.ended_at, provider.now) - s.started_at))::float8 AS call_seconds
                 FROM provider_starts s
                WHERE s.provider_id = p.id AND s.sequence > t.floor_sequence
                  AND s.started_at > provider.now - provider.span_seconds * interval '1 second') recent
         WHERE p.id = $1
        """,
        provider_id,
    )
    if row is None:
        return None
    values = dict(row)
    starts = zip(values.pop("leaves_in_seconds") or (), values.pop("tokens") or (), strict=True)
    return Backlog(**values, window=[WindowStart(leaves_in, tokens) for leaves_in, tokens in starts])


async def providers_of_log(connection: Connection, workspace_id: str) -> dict[str, str]:
    """The ids of all providers, by name and in its order."""
    rows = await connection.fetch(
        "SELECT name, id FROM llm_providers WHERE workspace_id = $1 ORDER BY name", workspace_id
    )
    return {row["name"]: row["id"] for row in rows}


async def limit_changes_of(connection: Connection, provider_id: str) -> list[LimitsLine]:
    """Every setting of a provider's limits, in the order in which they were made."""
    rows = await connection.fetch(
        """
        SELECT p.name AS provider, c.since, c.max_parallel_requests, c.requests_per_minute, c.tokens_per_minute
          FROM limit_changes c JOIN llm_providers p ON p.id = c.provider_id
         WHERE c.provider_id = $1 ORDER BY c.number
        """,
        provider_id,
    )
    return [LimitsLine(**row) for row in rows]


async def stream_starts(
    connection: Connection,
    provider_id: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    window: timedelta = timedelta(0),
) -> AsyncGenerator[StartLine, None]:
    """The start log of one provider in order, read as it is consumed; to be called in a transaction.

    With `since`, from one window before it, and with all that had not ended then.
    """
    # Sorting would read the whole log before the first row; the primary key has it in order.
    await connection.execute("SET LOCAL enable_sort = off")
    rows = connection.cursor(
        """
        SELECT p.name AS provider, s.sequence, s.request_id, s.lease_id, s.started_at, s.ended_at, s.reserved_tokens,
               s.settled_tokens
          FROM provider_starts s JOIN llm_providers p ON p.id = s.provider_id
         WHERE s.provider_id = $1
           AND ($2::timestamptz IS NULL OR s.started_at > $2 - $4::interval OR coalesce(s.ended_at > $2, true))
           AND ($3::timestamptz IS NULL OR s.started_at < $3)
         ORDER BY s.sequence
        """,
        provider_id,
        since,
        until,
        window,
        prefetch=2000,
    )
    async for row in rows:
        yield StartLine(**row)


async def read_clocks(connection: Connection) -> tuple[datetime, datetime]:
    """The server's own and the steady one, which the start log is kept by."""
    row = await connection.fetchrow("SELECT clock_timestamp() AS server, steady_now() AS steady")
    assert row is not None
    return row["server"], row["steady"]


async def all_provider_ids(connection: Connection) -> list[str]:
    return [row["id"] for row in await connection.fetch("SELECT id FROM llm_providers ORDER BY id")]


async def page_of_past_starts(
    connection: Connection, provider_id: str, *, after_sequence: int, ended_before: datetime, limit: int
) -> tuple[list[int], int | None]:
    """Among the next `limit` starts that have left every window: those whose calls ended before then, and the last one.

    What is beyond the floor of the limit state is in the sum of its window still. The last one is None where none is
    left.
    """
    rows = await connection.fetch(
        """
        SELECT s.sequence, coalesce(s.ended_at < $3, false) AS has_ended
          FROM provider_starts s JOIN limit_states t ON t.provider_id = s.provider_id
         WHERE s.provider_id = $1 AND s.sequence > $2 AND s.sequence <= t.floor_sequence AND s.started_at < $3
         ORDER BY s.sequence LIMIT $4
        """,
        provider_id,
        after_sequence,
        ended_before,
        limit,
    )
    return [row["sequence"] for row in rows if row["has_ended"]], rows[-1]["sequence"] if rows else None


async def delete_starts(connection: Connection, provider_id: str, sequences: Sequence[int]) -> None:
    await connection.execute(
        "DELETE FROM provider_starts WHERE provider_id = $1 AND sequence = ANY ($2)", provider_id, sequences
    )
