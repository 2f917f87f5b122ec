"""The SQL of admission: claiming and renewing are functions in the database (migration 0002_requests)."""

from __future__ import annotations

from collections.abc import Sequence

from asyncpg import Record

from app.db.pool import Connection
from app.limits.records import Claim, ClaimedRequest, LeaseId, LimitUsage, RenewedLease, Start


async def claim_requests(
    connection: Connection,
    provider_id: str,
    *,
    worker_id: str,
    capacity: int,
    lease_seconds: float,
    owner_id: str | None = None,
) -> Claim | None:
    """Admits and leases up to `capacity` requests of one provider. None where there is no such provider.

    Without `owner_id`, those that any worker may run; with it, those that its owner alone may.
    """
    rows = await connection.fetch(
        "SELECT * FROM claim_requests($1, $2, $3, $4, $5)", provider_id, worker_id, capacity, lease_seconds, owner_id
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
    connection: Connection, held: Sequence[tuple[str, LeaseId]], *, lease_seconds: float
) -> list[RenewedLease]:
    """Extends what is still held; what is missing from the answer is lost."""
    rows = await connection.fetch(
        "SELECT * FROM renew_leases($1, $2, $3)",
        [request_id for request_id, _ in held],
        [lease_id for _, lease_id in held],
        lease_seconds,
    )
    return [RenewedLease(row["request_id"], LeaseId(row["lease_id"]), row["cancel_requested"]) for row in rows]


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
         CROSS JOIN LATERAL (SELECT greatest(clock_timestamp(), t.clock) AS now) AS provider
         WHERE EXISTS (SELECT FROM model_requests
                        WHERE provider_id = p.id AND status = 'PROCESSING' AND lease_expires_at <= provider.now)
            OR EXISTS (SELECT FROM model_requests
                        WHERE provider_id = p.id AND status = 'PENDING' AND deadline <= provider.now)
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
               recent.tokens_in_window, t.consecutive_failures, t.circuit_open_until
          FROM limit_states t
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
                  AND s.started_at > clock_timestamp()
                      - (t.window_milliseconds + t.delivery_milliseconds) * interval '1 millisecond') recent
         WHERE t.provider_id = ANY ($1)
        """,
        list(provider_ids),
    )
    return {
        row["provider_id"]: LimitUsage(**{name: value for name, value in row.items() if name != "provider_id"})
        for row in rows
    }
