"""The SQL of pruning."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from app.db.pool import Connection


async def page_of_ended(
    connection: Connection, *, after_id: str, before_id: str, ended_before: datetime, limit: int
) -> tuple[list[str], str | None]:
    """Among the next `limit` requests in the order of their ids: those that ended before then, and the last one's id.

    The last one is None where none is left.
    """
    rows = await connection.fetch(
        """
        SELECT id, status IN ('COMPLETED', 'FAILED', 'CANCELLED') AND finished_at < $3 AS has_ended
          FROM model_requests WHERE id > $1 AND id < $2 ORDER BY id LIMIT $4
        """,
        after_id,
        before_id,
        ended_before,
        limit,
    )
    return [row["id"] for row in rows if row["has_ended"]], rows[-1]["id"] if rows else None


async def count_attempts(connection: Connection, request_ids: Sequence[str]) -> int:
    return int(
        await connection.fetchval("SELECT count(*) FROM request_attempts WHERE request_id = ANY ($1)", request_ids)
    )


async def delete_requests(connection: Connection, ids: Sequence[str]) -> None:
    """With their attempts. The ledger keeps what they cost."""
    await connection.execute("DELETE FROM request_attempts WHERE request_id = ANY ($1)", ids)
    await connection.execute("DELETE FROM model_requests WHERE id = ANY ($1)", ids)
