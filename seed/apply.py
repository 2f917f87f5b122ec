"""Writes a plan to the database, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from app.db.ids import new_id
from app.db.pool import Connection
from seed import repository
from seed.plan import SCHEMA_DEFAULTS, Action, Kind, Outcome, Plan
from seed.repository import Loaded

_BATCH: Final = 500

_Write = Callable[[Connection, Sequence[Any]], Awaitable[None]]


class Progress(Protocol):
    def __call__(self, done: int, total: int) -> None: ...


async def apply_plan(connection: Connection, plan: Plan, loaded: Loaded, progress: Progress | None = None) -> None:
    """Writes what the plan creates and updates. A plan without either runs no statement: the revision stays."""
    steps = _steps(plan, loaded)
    total, done = sum(len(rows) for _, rows in steps), 0
    for write, rows in steps:
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            await write(connection, batch)
            done += len(batch)
            if progress is not None:
                progress(done, total)


def _steps(plan: Plan, loaded: Loaded) -> list[tuple[_Write, list[dict[str, Any]]]]:
    creates = {kind: _select(plan, kind, Outcome.CREATE) for kind in Kind}
    updates = {kind: _select(plan, kind, Outcome.UPDATE) for kind in Kind}
    ids = dict(loaded.ids)
    for kind in (Kind.PROVIDER, Kind.MODEL):
        ids |= {action.item.identity: new_id() for action in creates[kind]}

    def create(action: Action, **more: Any) -> dict[str, Any]:
        kind = action.item.identity.kind
        return {**SCHEMA_DEFAULTS[kind], **action.written, "id": ids.get(action.item.identity) or new_id(), **more}

    def update(action: Action) -> dict[str, Any]:
        present = loaded.catalog.rows[action.item.identity]
        return {**present, **action.written, "id": ids[action.item.identity]}

    model_updates = [update(action) for action in updates[Kind.MODEL]]
    # The index on the one default is checked row by row: a default that goes must be gone before another comes.
    withdrawn = [row for row in model_updates if not row["is_default"]]
    defaults = [row for row in model_updates if row["is_default"]]
    return [
        (repository.insert_providers, [create(action, **_provider_key(action)) for action in creates[Kind.PROVIDER]]),
        (repository.update_providers, [update(action) for action in updates[Kind.PROVIDER]]),
        (repository.update_models, withdrawn),
        (repository.insert_models, [create(action, **_model_key(action, ids)) for action in creates[Kind.MODEL]]),
        (repository.update_models, defaults),
        (
            repository.append_prices,
            [create(action, **_price_key(action, ids)) for action in creates[Kind.PRICE] + updates[Kind.PRICE]],
        ),
        (
            repository.upsert_settings,
            [create(action, key=action.item.identity.key) for action in creates[Kind.SETTING] + updates[Kind.SETTING]],
        ),
        (repository.upsert_records, [_record(action) for action in plan.actions if action.record is not None]),
    ]


def _select(plan: Plan, kind: Kind, outcome: Outcome) -> list[Action]:
    return [action for action in plan.actions if action.item.identity.kind is kind and action.outcome is outcome]


def _provider_key(action: Action) -> dict[str, Any]:
    workspace, _, name = action.item.identity.key.partition("/")
    return {"workspace": workspace, "name": name}


def _model_key(action: Action, ids: Any) -> dict[str, Any]:
    parent = action.item.parent
    assert parent is not None
    return {"provider_id": ids[parent], "model_id": action.item.identity.key.removeprefix(parent.key + ":")}


def _price_key(action: Action, ids: Any) -> dict[str, Any]:
    assert action.item.parent is not None
    return {"model_id": ids[action.item.parent], "unit": action.item.identity.key.rpartition("#")[2]}


def _record(action: Action) -> dict[str, Any]:
    assert action.record is not None
    identity = action.item.identity
    return {
        "kind": identity.kind,
        "key": identity.key,
        "source": "+".join(sorted(action.record.sources)),
        "values": dict(action.record.values),
    }
