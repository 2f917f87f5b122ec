"""All SQL of the settings."""

from __future__ import annotations

from app.db.ids import new_id
from app.db.pool import Connection
from app.db.rows import SYSTEM_SETTING_COLUMNS
from app.settings.records import SystemSetting


async def upsert(connection: Connection, key: str, encoded: bytes) -> SystemSetting:
    """`encoded` is JSON; a Python None would be an SQL null."""
    row = await connection.fetchrow(
        f"""INSERT INTO system_settings (id, key, value, updated_at) VALUES ($1, $2, $3, now())
            ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = now()
            RETURNING {SYSTEM_SETTING_COLUMNS}""",
        new_id(),
        key,
        encoded,
    )
    assert row is not None
    return SystemSetting.from_record(row)


async def delete(connection: Connection, key: str) -> SystemSetting | None:
    row = await connection.fetchrow(
        f"DELETE FROM system_settings WHERE key = $1 RETURNING {SYSTEM_SETTING_COLUMNS}",
        key,
    )
    return None if row is None else SystemSetting.from_record(row)
