"""Writes a plan in the caller's transaction, each kind of row in one statement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.catalog.snapshot import Snapshot
from app.configuration import repository
from app.configuration.document import print_time
from app.configuration.fields import LIST_PRICES, MODEL_FIELDS, PROVIDER_FIELDS
from app.configuration.records import Action, Change, Kind, Plan
from app.configuration.values import printable
from app.db.ids import new_id
from app.db.pool import Connection

_PROVIDER_COLUMNS = tuple(field.column for field in PROVIDER_FIELDS)
_MODEL_COLUMNS = (*(field.column for field in MODEL_FIELDS), *LIST_PRICES.values())


async def apply_plan(connection: Connection, plan: Plan, snapshot: Snapshot, workspace_id: str) -> None:
    """`snapshot` is what the plan was made from. A plan without changes runs no statement: the revision stays."""
    writer = _Writer(connection, plan, snapshot, workspace_id)
    await writer.delete()
    await writer.write_providers()
    await writer.write_models()
    await writer.append_prices()
    await writer.write_settings()


class _Writer:
    def __init__(self, connection: Connection, plan: Plan, snapshot: Snapshot, workspace_id: str) -> None:
        self._connection = connection
        self._plan = plan
        self._snapshot = snapshot
        self._workspace_id = workspace_id
        self._provider_ids = {row.name: row.id for row in snapshot.providers if row.workspace_id == workspace_id}
        self._model_ids: dict[str, str] = {}

    async def delete(self) -> None:
        for kind, delete in (
            (Kind.SETTING, repository.delete_settings),
            (Kind.MODEL, repository.delete_models),
            (Kind.PROVIDER, repository.delete_providers),
        ):
            ids = [change.row_id for change in self._plan.of(kind, Action.DELETE) if change.row_id is not None]
            if ids:
                await delete(self._connection, ids)

    async def write_providers(self) -> None:
        created = []
        for change in self._plan.of(Kind.PROVIDER, Action.CREATE):
            self._provider_ids[change.key] = new_id()
            identity = {
                "id": self._provider_ids[change.key],
                "workspace_id": self._workspace_id,
                "name": change.key,
            }
            created.append({**identity, **_json(change.values)})
        if created:
            await repository.insert_providers(self._connection, created)
        updated = [
            _updated(change, self._snapshot.provider(change.row_id or ""), _PROVIDER_COLUMNS)
            for change in self._plan.of(Kind.PROVIDER, Action.UPDATE)
        ]
        if updated:
            await repository.update_providers(self._connection, updated)

    async def write_models(self) -> None:
        updated = [
            _updated(change, self._snapshot.model(change.row_id or ""), _MODEL_COLUMNS)
            for change in self._plan.of(Kind.MODEL, Action.UPDATE)
            if change.values
        ]
        # The index on the one default is checked row by row: a default that goes must be gone before another comes.
        if withdrawn := [row for row in updated if not row["is_default"]]:
            await repository.update_models(self._connection, withdrawn)
        if created := [self._created(change) for change in self._plan.of(Kind.MODEL, Action.CREATE)]:
            await repository.insert_models(self._connection, created)
        if defaults := [row for row in updated if row["is_default"]]:
            await repository.update_models(self._connection, defaults)

    async def append_prices(self) -> None:
        rows = [
            {
                "id": new_id(),
                "model_id": change.row_id or self._model_ids[change.key],
                "unit": price.unit.value,
                "price_per_million": printable(price.price),
                "effective_at": None if price.effective_at is None else print_time(price.effective_at),
            }
            for change in self._plan.changes
            for price in change.prices
        ]
        if rows:
            await repository.append_prices(self._connection, rows)

    async def write_settings(self) -> None:
        rows = [
            {"id": new_id(), "key": change.key, "value": change.values["value"]}
            for action in (Action.CREATE, Action.UPDATE)
            for change in self._plan.of(Kind.SETTING, action)
        ]
        if rows:
            await repository.upsert_settings(self._connection, rows)

    def _created(self, change: Change) -> dict[str, Any]:
        assert change.provider is not None
        self._model_ids[change.key] = new_id()
        return {
            "id": self._model_ids[change.key],
            "workspace_id": self._workspace_id,
            "provider_id": self._provider_ids[change.provider],
            "model_id": change.key.removeprefix(f"{change.provider}:"),
            **dict.fromkeys(LIST_PRICES.values()),
            **_json(change.values),
        }


def _updated(change: Change, row: Any, columns: Iterable[str]) -> dict[str, Any]:
    present = {column: getattr(row, column) for column in columns}
    return {"id": change.row_id, **_json({**present, **change.values})}


def _json(values: Mapping[str, Any]) -> dict[str, Any]:
    return {column: printable(value) for column, value in values.items()}
