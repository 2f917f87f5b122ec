"""System settings, and the models that infra tasks are to use. Settings build on the catalog, never the reverse."""

from __future__ import annotations

from typing import Any

import asyncpg

from app.catalog import repository as catalog
from app.catalog.records import DEFAULT_WORKSPACE, LlmModel
from app.catalog.snapshot import Snapshot
from app.catalog.snapshots import SnapshotHolder
from app.db.pool import Connection, Database
from app.errors import NotFound, ValidationError
from app.settings import repository, rules
from app.settings.records import SystemSetting


class SettingsService:
    def __init__(self, database: Database, snapshots: SnapshotHolder) -> None:
        self._database = database
        self._snapshots = snapshots

    async def set(self, key: str, value: Any, *, workspace_id: str = DEFAULT_WORKSPACE) -> SystemSetting:
        """Raises ValidationError; ModelUnavailable where an infra model does not exist or may not be used."""
        rules.check_key(key)
        encoded = rules.encode_value(value)
        name = rules.parse_infra_model(value) if key.startswith(rules.INFRA_MODEL_PREFIX) else None
        try:
            async with self._database.transaction() as connection:
                await catalog.lock_catalog(connection)
                if name is not None:
                    # The lock keeps the model as it is found here until the setting that names it is committed.
                    snapshot = await self._locked_snapshot(connection)
                    rules.resolve_infra_model(snapshot, key, name, workspace_id, "value")
                setting = await repository.upsert(connection, key, encoded)
                revision = await catalog.read_revision(connection)
        except asyncpg.UntranslatableCharacterError:
            raise ValidationError("value", value, "JSON without the character U+0000") from None
        await self._snapshots.refresh(at_least=revision)
        return setting

    async def delete(self, key: str) -> SystemSetting:
        """Raises NotFound."""
        async with self._database.transaction() as connection:
            await catalog.lock_catalog(connection)
            setting = await repository.delete(connection, key) if rules.is_key(key) else None
            if setting is None:
                raise NotFound("SystemSetting", key, path=("key",))
            revision = await catalog.read_revision(connection)
        await self._snapshots.refresh(at_least=revision)
        return setting

    def all(self) -> tuple[SystemSetting, ...]:
        """By key."""
        return self._snapshots.current.settings

    def get(self, key: str) -> SystemSetting | None:
        return self._snapshots.current.setting(key)

    def infra_model(self, task: str, *, workspace_id: str = DEFAULT_WORKSPACE) -> LlmModel:
        """The model that the setting `infra_model_<task>` names.

        Raises NotFound without such a setting, ValidationError where its value names no model, and ModelUnavailable
        with the reason and alternatives where that model is gone, not active, or its provider is disabled.
        """
        return infra_model(self._snapshots.current, task, workspace_id)

    async def _locked_snapshot(self, connection: Connection) -> Snapshot:
        current = self._snapshots.current
        if current.revision == await catalog.read_revision(connection):
            return current
        return await catalog.load_snapshot(connection)


def infra_model(snapshot: Snapshot, task: str, workspace_id: str = DEFAULT_WORKSPACE) -> LlmModel:
    """As `SettingsService.infra_model`, of one snapshot."""
    key = rules.INFRA_MODEL_PREFIX + task
    setting = snapshot.setting(key)
    if setting is None:
        raise NotFound("SystemSetting", key, path=("task",))
    name = rules.parse_infra_model(setting.value, key)
    return rules.resolve_infra_model(snapshot, key, name, workspace_id, "task")
