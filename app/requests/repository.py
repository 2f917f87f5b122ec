"""The SQL of requests, their attempts and their ledger lines."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec
from asyncpg import Record

from app.db.pool import Connection
from app.db.rows import LEDGER_ENTRY_COLUMNS, MODEL_REQUEST_COLUMNS, REQUEST_ATTEMPT_COLUMNS
from app.limits.records import UNKNOWN, Claim, Expectation
from app.limits.repository import read_claim
from app.money import print_decimal
from app.providers.operations import chunk_from_json
from app.requests.records import (
    AttemptResult,
    ChunkGroup,
    KeyedRequest,
    LedgerEntry,
    ModelRequest,
    ModelRequestStatus,
    NewRequest,
    Progress,
    RequestAttempt,
    RequestFilter,
)

# Writes the typed outputs, and a Decimal as its exact text.
_encode: Final = msgspec.json.Encoder().encode


_COPY_FROM: Final = 50
"""Requests; below that the one round trip of a statement is sooner done than COPY and its notification."""
_COPIED_COLUMNS: Final = tuple("fallback_model_ids" if name == "fallbacks" else name for name in NewRequest._fields)
_FALLBACKS: Final = NewRequest._fields.index("fallbacks")


async def insert_requests(connection: Connection, requests: Sequence[NewRequest]) -> set[str]:
    """Inserts a batch in order and wakes the workers. Answers the ids that are new: a taken idempotency key is not.

    To be called in a transaction.
    """
    if len(requests) >= _COPY_FROM and all(request.idempotency_key is None for request in requests):
        return await _copy_requests(connection, requests)
    rows = await connection.fetch(
        """
        WITH inserted AS (
          INSERT INTO model_requests (id, workspace_id, provider_id, model_id, model_ref, operation, priority,
                                      idempotency_key, request_digest, deadline, owner_id, is_streamed,
                                      fallback_model_ids, payload, parameters, metadata, reserved_tokens, max_attempts,
                                      created_by)
          SELECT id, workspace_id, provider_id, model_id, model_ref, operation, priority, idempotency_key,
                 request_digest, deadline, owner_id, is_streamed, string_to_array(fallbacks, ' '), payload, parameters,
                 metadata, reserved_tokens, max_attempts, created_by
            FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::"ModelOperation"[], $7::int[],
                        $8::text[], $9::text[], $10::timestamptz[], $11::text[], $12::bool[], $13::text[],
                        $14::jsonb[], $15::jsonb[], $16::jsonb[], $17::int[], $18::int[], $19::text[])
              AS new(id, workspace_id, provider_id, model_id, model_ref, operation, priority, idempotency_key,
                     request_digest, deadline, owner_id, is_streamed, fallbacks, payload, parameters, metadata,
                     reserved_tokens, max_attempts, created_by)
          ON CONFLICT (workspace_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
          RETURNING id, provider_id
        ), announced AS (
          SELECT pg_notify('tollgate_work', provider_id) FROM (SELECT DISTINCT provider_id FROM inserted) AS providers
        )
        SELECT id FROM inserted WHERE (SELECT count(*) FROM announced) >= 0
        """,
        *zip(*requests, strict=True),
    )
    return {row["id"] for row in rows}


async def _copy_requests(connection: Connection, requests: Sequence[NewRequest]) -> set[str]:
    """COPY takes half the time of a statement over arrays, and nothing can conflict where no key is given."""
    await connection.copy_records_to_table(
        "model_requests",
        columns=_COPIED_COLUMNS,
        records=((*row[:_FALLBACKS], row.fallbacks.split(), *row[_FALLBACKS + 1 :]) for row in requests),
    )
    providers = list({request.provider_id for request in requests})
    await connection.execute("SELECT pg_notify('tollgate_work', id) FROM unnest($1::text[]) AS id", providers)
    return {request.id for request in requests}


async def submit_and_claim(
    connection: Connection,
    requests: Sequence[NewRequest],
    *,
    owner_id: str,
    capacity: int,
    lease_seconds: float,
    expectation: Expectation = UNKNOWN,
) -> dict[str, Claim]:
    """Inserts what an owner's clients wait for and claims what is permitted now, in one statement: by provider."""
    rows = await connection.fetch(
        "SELECT * FROM submit_and_claim($1, $2, $3, $4, $5, $6)",
        _encode([_row_values(request) for request in requests]),
        owner_id,
        capacity,
        lease_seconds,
        *expectation,
    )
    by_provider: dict[str, list[Record]] = {}
    for row in rows:
        by_provider.setdefault(row["provider_id"], []).append(row)
    claims = {provider_id: read_claim(group, provider_id) for provider_id, group in by_provider.items()}
    return {provider_id: claim for provider_id, claim in claims.items() if claim is not None}


def _row_values(request: NewRequest) -> dict[str, Any]:
    return {**request._asdict(), "payload": msgspec.Raw(request.payload)}


async def keep_owner(
    connection: Connection, owner_id: str, *, seconds: float, expectation: Expectation = UNKNOWN
) -> None:
    """Says that the process lives, and forgets those that have been gone for a day."""
    await connection.execute(
        """
        WITH clock AS MATERIALIZED (SELECT steady_now($3, $4) AS now),
             gone AS (DELETE FROM owner_processes USING clock WHERE expires_at < now - interval '1 day')
        INSERT INTO owner_processes (id, expires_at) SELECT $1, now + $2 * interval '1 second' FROM clock
        ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at
        """,
        owner_id,
        seconds,
        *expectation,
    )


async def remove_owner(connection: Connection, owner_id: str) -> None:
    """Says that the process has ended; what it still owns ends at the next claim."""
    await connection.execute("DELETE FROM owner_processes WHERE id = $1", owner_id)


async def finish_requests(
    connection: Connection, results: Sequence[AttemptResult], *, expectation: Expectation = UNKNOWN
) -> dict[str, ModelRequestStatus]:
    """Ends attempts in one statement. A request that is missing from the answer was no longer held under its lease."""
    lines = [line for result in results if result.cost is not None for line in _ledger_lines(result)]
    rows = await connection.fetch(
        "SELECT * FROM finish_requests($1, $2, $3, $4)",
        _encode([_finish_values(result) for result in results]),
        _encode(lines),
        *expectation,
    )
    return {row["request_id"]: ModelRequestStatus(row["status"]) for row in rows}


async def finished_before(connection: Connection, results: Sequence[AttemptResult]) -> dict[str, ModelRequestStatus]:
    """Of these attempts, those whose end is written already, with the status that their requests have now."""
    rows = await connection.fetch(
        """
        SELECT r.id, r.status FROM unnest($1::text[], $2::text[]) AS ended(request_id, lease_id)
          JOIN request_attempts a ON a.request_id = ended.request_id AND a.lease_id = ended.lease_id
           AND a.status <> 'LOST'
          JOIN model_requests r ON r.id = a.request_id
        """,
        [result.request_id for result in results],
        [result.lease_id for result in results],
    )
    return {row["id"]: ModelRequestStatus(row["status"]) for row in rows}


def _finish_values(result: AttemptResult) -> dict[str, Any]:
    values: dict[str, Any] = {
        "request_id": result.request_id,
        "lease_id": result.lease_id,
        "outcome": result.outcome,
        "retry_seconds": result.retry_seconds,
        "attempts_more": result.attempts_more,
        "provider_fault": result.provider_fault,
        "settled_tokens": result.settled_tokens,
        "first_chunk_seconds": result.first_chunk_seconds,
        "output": result.output,
        "output_text": result.output_text,
        "response_model": result.response_model,
        "provider_request_id": result.provider_request_id,
        "finish_reason": result.finish_reason,
        "http_status": result.http_status,
    }
    if (usage := result.usage) is not None:
        values |= {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cache_read_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "images": usage.images,
            "characters": usage.characters,
            "seconds": usage.seconds,
            "searches": usage.searches,
            "usage_estimated": usage.estimated,
        }
    if result.cost is not None:
        values["currency"] = result.cost.currency
        values["cost_total"] = None if result.cost.total is None else print_decimal(result.cost.total)
    if (error := result.error) is not None:
        values["error"] = {
            "code": error.code,
            "message": error.message,
            "retryable": error.retryable,
            "httpStatus": error.http_status,
        }
    return values


def _ledger_lines(result: AttemptResult) -> list[dict[str, Any]]:
    assert result.cost is not None
    assert result.usage is not None
    return [
        {
            "request_id": result.request_id,
            "lease_id": result.lease_id,
            "unit": line.unit,
            "quantity": line.quantity,
            "price_id": line.price.id if line.price is not None else None,
            "price_per_million": print_decimal(line.price.price_per_million)
            if line.price is not None and line.price.price_per_million is not None
            else None,
            "amount": print_decimal(line.amount) if line.amount is not None else None,
            "currency": result.cost.currency,
            "is_estimated": result.usage.estimated,
        }
        for line in result.cost.lines
    ]


async def append_chunks(connection: Connection, groups: Sequence[ChunkGroup]) -> None:
    """Keeps chunks for as long as their lease is held, and tells who follows the requests."""
    await connection.execute(
        """
        WITH appended AS (
          INSERT INTO request_chunks (request_id, lease_id, sequence, chunks)
          SELECT new.request_id, new.lease_id, new.sequence, new.chunks
            FROM unnest($1::text[], $2::text[], $3::int[], $4::jsonb[]) AS new(request_id, lease_id, sequence, chunks)
            JOIN model_requests r ON r.id = new.request_id AND r.lease_id = new.lease_id
          RETURNING request_id
        )
        SELECT announce_requests(array_agg(DISTINCT request_id)) FROM appended
        """,
        [group.request_id for group in groups],
        [group.lease_id for group in groups],
        [group.sequence for group in groups],
        [_encode(group.chunks) for group in groups],
    )


async def read_progress(
    connection: Connection, workspace_id: str, request_id: str, *, lease_id: str | None, after_sequence: int
) -> Progress | None:
    """Where a request is, with the groups of the running lease: all, or those after `after_sequence` of `lease_id`."""
    rows = await connection.fetch(
        """
        SELECT r.status, r.lease_id, r.attempt_count, c.sequence, c.chunks
          FROM model_requests r
          LEFT JOIN request_chunks c ON c.request_id = r.id AND c.lease_id = r.lease_id
                                    AND (c.lease_id IS DISTINCT FROM $3 OR c.sequence > $4)
         WHERE r.workspace_id = $1 AND r.id = $2
         ORDER BY c.sequence
        """,
        workspace_id,
        request_id,
        lease_id,
        after_sequence,
    )
    if not rows:
        return None
    return Progress(
        ModelRequestStatus(rows[0]["status"]),
        rows[0]["lease_id"],
        rows[0]["attempt_count"],
        tuple(
            ChunkGroup(request_id, row["lease_id"], row["sequence"], tuple(map(chunk_from_json, row["chunks"])))
            for row in rows
            if row["sequence"] is not None
        ),
    )


async def cancel_request(connection: Connection, workspace_id: str, request_id: str) -> ModelRequestStatus | None:
    """Cancels a waiting request, asks a running one to stop. Answers the status it now has."""
    status = await connection.fetchval("SELECT cancel_request($1, $2)", workspace_id, request_id)
    return None if status is None else ModelRequestStatus(status)


async def ends_of(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[ModelRequestStatus, str | None]]:
    """Of those requests that have ended: the status, and the error's code."""
    rows = await connection.fetch(
        """
        SELECT id, status, error ->> 'code' AS code FROM model_requests
         WHERE id = ANY ($1) AND status NOT IN ('PENDING', 'PROCESSING')
        """,
        list(ids),
    )
    return {row["id"]: (ModelRequestStatus(row["status"]), row["code"]) for row in rows}


async def get_requests(connection: Connection, workspace_id: str, ids: Sequence[str]) -> dict[str, ModelRequest]:
    rows = await connection.fetch(
        f"SELECT {MODEL_REQUEST_COLUMNS} FROM model_requests WHERE workspace_id = $1 AND id = ANY ($2)",
        workspace_id,
        list(ids),
    )
    return {row["id"]: ModelRequest.from_record(row) for row in rows}


async def find_keyed(connection: Connection, workspace_id: str, keys: Collection[str]) -> dict[str, KeyedRequest]:
    """The requests that were submitted under these idempotency keys."""
    rows = await connection.fetch(
        """SELECT id, idempotency_key, request_digest FROM model_requests
            WHERE workspace_id = $1 AND idempotency_key = ANY ($2)""",
        workspace_id,
        list(keys),
    )
    return {row["idempotency_key"]: KeyedRequest(row["id"], row["request_digest"]) for row in rows}


async def list_requests(
    connection: Connection, workspace_id: str, where: RequestFilter, *, before_id: str | None, limit: int
) -> list[ModelRequest]:
    """Newest first, from before `before_id`."""
    conditions, arguments = _conditions(workspace_id, where)
    if before_id is not None:
        arguments.append(before_id)
        conditions.append(f"id < ${len(arguments)}")
    arguments.append(limit)
    rows = await connection.fetch(
        f"SELECT {MODEL_REQUEST_COLUMNS} FROM model_requests WHERE {' AND '.join(conditions)} "
        f"ORDER BY id DESC LIMIT ${len(arguments)}",
        *arguments,
    )
    return [ModelRequest.from_record(row) for row in rows]


async def count_requests(connection: Connection, workspace_id: str, where: RequestFilter) -> int:
    conditions, arguments = _conditions(workspace_id, where)
    return int(
        await connection.fetchval(
            f"SELECT count(*) FROM model_requests WHERE {' AND '.join(conditions)}",
            *arguments,
        )
    )


def _conditions(workspace_id: str, where: RequestFilter) -> tuple[list[str], list[Any]]:
    conditions = ["workspace_id = $1"]
    arguments: list[Any] = [workspace_id]
    for condition, value in (
        ("id = ANY (${})", where.ids),
        ("status = ${}", where.status),
        ("provider_id = ${}", where.provider_id),
        ("model_id = ${}", where.model_id),
        ("created_at >= ${}", where.created_after),
        ("created_at < ${}", where.created_before),
    ):
        if value is not None:
            arguments.append(value)
            conditions.append(condition.format(len(arguments)))
    return conditions, arguments


async def attempts_of(connection: Connection, request_ids: Sequence[str]) -> Mapping[str, list[RequestAttempt]]:
    """The attempts of each request, in order."""
    rows = await connection.fetch(
        f"SELECT {REQUEST_ATTEMPT_COLUMNS} FROM request_attempts WHERE request_id = ANY ($1) "
        "ORDER BY number, started_at",
        list(request_ids),
    )
    grouped: dict[str, list[RequestAttempt]] = {}
    for row in rows:
        grouped.setdefault(row["request_id"], []).append(RequestAttempt.from_record(row))
    return grouped


async def ledger_entries_of(connection: Connection, request_ids: Sequence[str]) -> Mapping[str, list[LedgerEntry]]:
    """The ledger lines of each request, in the order of their units."""
    rows = await connection.fetch(
        f"SELECT {LEDGER_ENTRY_COLUMNS} FROM ledger_entries WHERE request_id = ANY ($1) ORDER BY charged_at, unit",
        list(request_ids),
    )
    grouped: dict[str, list[LedgerEntry]] = {}
    for row in rows:
        grouped.setdefault(row["request_id"], []).append(LedgerEntry.from_record(row))
    return grouped
