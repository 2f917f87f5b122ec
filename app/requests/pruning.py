"""Forgets requests that ended long ago, and the starts of their calls, in short transactions. The ledger stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.db.ids import ids_from
from app.db.pool import Database
from app.limits import repository as limits
from app.requests import pruning_repository as repository


@dataclass(slots=True)
class Pruned:
    """What is gone so far. Also that which would be, where nothing is to be deleted."""

    before: datetime
    requests: int = 0
    attempts: int = 0
    starts: int = 0


class PruningService:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def prune(
        self,
        older_than: timedelta,
        *,
        keep_requests: bool = False,
        dry_run: bool = False,
        batch: int = 5000,
        tell: Callable[[Pruned], None] = lambda _: None,
    ) -> Pruned:
        """`tell` is told after each batch. What was deleted before an interruption stays deleted."""
        async with self._database.connection() as connection:
            now, steady_now = await limits.read_clocks(connection)
            providers = await limits.all_provider_ids(connection)
        pruned = Pruned(now - older_than)
        if not keep_requests:
            await self._prune_requests(pruned, batch, dry_run, tell)
        for provider_id in providers:
            await self._prune_starts(provider_id, steady_now - older_than, pruned, batch, dry_run, tell)
        return pruned

    async def _prune_requests(self, pruned: Pruned, batch: int, dry_run: bool, tell: Callable[[Pruned], None]) -> None:
        # Ids are in the order of time: what ended before then was submitted before then. What a machine submitted whose
        # clock was ahead is found later.
        before_id = ids_from(max(0, round(pruned.before.timestamp() * 1000)))
        last: str | None = ""
        while last is not None:
            async with self._database.transaction() as connection:
                ids, last = await repository.page_of_ended(
                    connection, after_id=last, before_id=before_id, ended_before=pruned.before, limit=batch
                )
                pruned.attempts += await repository.count_attempts(connection, ids)
                if not dry_run:
                    await repository.delete_requests(connection, ids)
            pruned.requests += len(ids)
            tell(pruned)

    async def _prune_starts(
        self,
        provider_id: str,
        before: datetime,
        pruned: Pruned,
        batch: int,
        dry_run: bool,
        tell: Callable[[Pruned], None],
    ) -> None:
        last: int | None = 0
        while last is not None:
            async with self._database.transaction() as connection:
                sequences, last = await limits.page_of_past_starts(
                    connection, provider_id, after_sequence=last, ended_before=before, limit=batch
                )
                if not dry_run:
                    await limits.delete_starts(connection, provider_id, sequences)
            pruned.starts += len(sequences)
            tell(pruned)
