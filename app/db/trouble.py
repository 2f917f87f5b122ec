"""What a statement raises when the database is away, restarts, or breaks the connection."""

from __future__ import annotations

from typing import Final

import asyncpg

DATABASE_TROUBLE: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # A server killed in the middle of an answer: what came of it makes no sense to the driver.
    asyncpg.InternalClientError,
)
"""The same statement may succeed later."""
