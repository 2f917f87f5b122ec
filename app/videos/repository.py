"""The SQL of videos: their requests without the files, which may be large, and the files in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from asyncpg import Record

from app.db.pool import Connection
from app.videos.records import ModelRequestStatus, Video, VideoFile

MAX_PROMPT_CHARACTERS: Final = 32_000
"""Of a prompt as it is shown; OpenAI takes no longer one."""

_MAX_SHOWN: Final = 100
_PIECE_BYTES: Final = 1024 * 1024

_COLUMNS: Final = f"""
    id, model_ref, status, left(payload ->> 'prompt', {MAX_PROMPT_CHARACTERS}) AS prompt,
    left(parameters ->> 'size', {_MAX_SHOWN}) AS size, left(parameters ->> 'seconds', {_MAX_SHOWN}) AS wanted_seconds,
    seconds, cost_total, currency, error, created_at, finished_at
"""
_THERE: Final = """
    workspace_id = $1 AND operation = 'VIDEO' AND NOT (status = 'COMPLETED' AND output IS NULL)
"""
"""A completed one without an output is one whose file was deleted."""


async def get_video(connection: Connection, workspace_id: str, id: str) -> Video | None:
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM model_requests WHERE {_THERE} AND id = $2", workspace_id, id
    )
    return None if row is None else _video(row)


async def list_videos(
    connection: Connection, workspace_id: str, *, after: str | None, limit: int, newest_first: bool
) -> list[Video]:
    """In the order of their ids, from after `after`."""
    if newest_first:
        rows = await connection.fetch(
            f"""SELECT {_COLUMNS} FROM model_requests
                 WHERE {_THERE} AND ($2::text IS NULL OR id < $2) ORDER BY id DESC LIMIT $3""",
            workspace_id,
            after,
            limit,
        )
    else:
        rows = await connection.fetch(
            f"""SELECT {_COLUMNS} FROM model_requests
                 WHERE {_THERE} AND ($2::text IS NULL OR id > $2) ORDER BY id LIMIT $3""",
            workspace_id,
            after,
            limit,
        )
    return [_video(row) for row in rows]


async def get_file(connection: Connection, workspace_id: str, id: str) -> VideoFile | None:
    """Of a completed video."""
    row = await connection.fetchrow(
        f"""
        SELECT provider_id, coalesce(output ->> 'media_type', 'video/mp4') AS media_type, output ->> 'url' AS url,
               coalesce((output ->> 'needs_credential')::bool, false) AS needs_credential
          FROM model_requests WHERE {_THERE} AND id = $2 AND status = 'COMPLETED'
        """,
        workspace_id,
        id,
    )
    return None if row is None else VideoFile(**row)


async def read_file(connection: Connection, workspace_id: str, id: str) -> AsyncIterator[bytes]:
    """A file that is kept here, in pieces; nothing where there is none. To be called in a transaction."""
    cursor = connection.cursor(
        f"""
        SELECT substr(data, start + 1, {_PIECE_BYTES}) AS piece
          FROM (SELECT decode(output ->> 'data', 'base64') AS data FROM model_requests
                 WHERE {_THERE} AND id = $2 AND status = 'COMPLETED' OFFSET 0) AS file,
               generate_series(0, length(data) - 1, {_PIECE_BYTES}) AS start
        """,
        workspace_id,
        id,
        prefetch=1,
    )
    async for row in cursor:
        yield row["piece"]


async def delete_file(connection: Connection, workspace_id: str, id: str) -> bool:
    """Forgets what a completed video's call answered; the request stays, with what it used and cost."""
    deleted = await connection.fetchval(
        f"UPDATE model_requests SET output = NULL WHERE {_THERE} AND id = $2 AND status = 'COMPLETED' RETURNING true",
        workspace_id,
        id,
    )
    return bool(deleted)


def _video(row: Record) -> Video:
    return Video(**{**row, "status": ModelRequestStatus(row["status"])})
