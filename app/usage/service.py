"""Reading what was used."""

from __future__ import annotations

from datetime import datetime

from app.catalog.references import format_model_ref, parse_model_ref
from app.catalog.resolution import find_model
from app.catalog.snapshots import SnapshotHolder
from app.db.pool import Database
from app.errors import NotFound, ValidationError
from app.money import normalize
from app.prices.records import CURRENCY
from app.usage import repository
from app.usage.records import UsageLine, UsageSummary, UsageUnit


class UsageService:
    def __init__(self, database: Database, snapshots: SnapshotHolder) -> None:
        self._database = database
        self._snapshots = snapshots

    async def summarize(
        self,
        *,
        workspace_id: str,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> UsageSummary:
        """Of what was charged from `since` on and before `until`.

        `model` is an id or a reference; a deleted model is known by its reference for as long as the ledger names it.
        Raises NotFound and ValidationError.
        """
        if since is not None and until is not None and until < since:
            raise ValidationError("to", until.isoformat(), f"at or after from, {since.isoformat()}")
        ref, is_in_catalog = (None, True) if model is None else self._ref(model, workspace_id)
        async with self._database.connection() as connection:
            total, *units = await repository.summarize(
                connection, workspace_id, model_ref=ref, since=since, until=until
            )
        if model is not None and not is_in_catalog and not total["calls"]:
            raise NotFound("LlmModel", model, path=("model",))
        return UsageSummary(
            requests=total["requests"],
            calls=total["calls"],
            estimated_calls=total["estimated_calls"],
            unpriced_calls=total["unpriced_calls"],
            total=normalize(total["amount"]),
            currency=CURRENCY,
            lines=tuple(
                UsageLine(UsageUnit(row["unit"]), normalize(row["quantity"]), normalize(row["amount"])) for row in units
            ),
        )

    def _ref(self, model: str, workspace_id: str) -> tuple[str, bool]:
        """As the ledger has it, and whether the catalog knows the model."""
        snapshot = self._snapshots.current
        try:
            return snapshot.ref(find_model(snapshot, model, workspace_id)), True
        except NotFound:
            if ":" not in model and not model.startswith("#/"):
                raise
            return format_model_ref(*parse_model_ref(model)), False
