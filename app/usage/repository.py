"""The SQL of sums over the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from asyncpg import Record

from app.db.pool import Connection


async def summarize(
    connection: Connection,
    workspace_id: str,
    *,
    model_ref: str | None,
    since: datetime | None,
    until: datetime | None,
) -> Sequence[Record]:
    """A row per unit, and before them one for all, whose unit is null. A null bound does not bound."""
    return await connection.fetch(
        """
        SELECT unit,
               coalesce(sum(quantity), 0) AS quantity,
               coalesce(sum(amount), 0) AS amount,
               count(DISTINCT request_id) AS requests,
               count(DISTINCT (request_id, lease_id)) AS calls,
               count(DISTINCT (request_id, lease_id)) FILTER (WHERE is_estimated) AS estimated_calls,
               count(DISTINCT (request_id, lease_id)) FILTER (WHERE amount IS NULL) AS unpriced_calls
          FROM ledger_entries
         WHERE workspace_id = $1
           AND ($2::text IS NULL OR model_ref = $2)
           AND ($3::timestamptz IS NULL OR charged_at >= $3)
           AND ($4::timestamptz IS NULL OR charged_at < $4)
         GROUP BY GROUPING SETS ((), (unit))
         ORDER BY unit NULLS FIRST
        """,
        workspace_id,
        model_ref,
        since,
        until,
    )
