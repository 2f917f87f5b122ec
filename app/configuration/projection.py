"""The catalog as it will be once changes are made, to check what refers to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from app.catalog.records import LlmModel, LlmProvider
from app.catalog.snapshot import Snapshot
from app.configuration.records import Action, Change, Kind


def project(snapshot: Snapshot, changes: Sequence[Change], workspace_id: str, at: datetime) -> Snapshot:
    """The catalog's providers and models as they will be; settings and prices are left out."""
    if not changes:
        return snapshot
    providers = {row.id: row for row in snapshot.providers}
    models = {row.id: row for row in snapshot.models}
    ids = {row.name: row.id for row in snapshot.providers if row.workspace_id == workspace_id}
    common = {"workspace_id": workspace_id, "created_at": at, "updated_at": at}
    for change in changes:
        row_id = change.row_id or f"new {change.kind} {change.key}"
        if change.kind is Kind.PROVIDER:
            _project(providers, LlmProvider, row_id, change, {**common, "name": change.key})
            ids[change.key] = row_id
        else:
            assert change.provider is not None
            model_id = change.key.removeprefix(f"{change.provider}:")
            given = {**common, "provider_id": ids[change.provider], "model_id": model_id}
            _project(models, LlmModel, row_id, change, given)
    kept = (model for model in models.values() if model.provider_id in providers)
    return Snapshot(snapshot.revision, providers.values(), kept)


def _project(rows: dict[str, Any], record: type[Any], row_id: str, change: Change, given: Mapping[str, Any]) -> None:
    if change.action is Action.DELETE:
        del rows[row_id]
    elif change.action is Action.UPDATE:
        rows[row_id] = replace(rows[row_id], **change.values)
    else:
        blank: dict[str, Any] = {item.name: None for item in fields(record)}
        rows[row_id] = record(**{**blank, "id": row_id, **given, **change.values})
