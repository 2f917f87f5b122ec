"""What the requests of one answer need besides their rows, read once for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar, cast

from strawberry.dataloader import DataLoader

from app.api.context import RequestContext
from app.requests.records import LedgerEntry, RequestAttempt

T = TypeVar("T")


def attempts_loader(context: RequestContext) -> DataLoader[str, list[RequestAttempt]]:
    return _loader(context, "attempts", context.services.requests.attempts_of)


def ledger_loader(context: RequestContext) -> DataLoader[str, list[LedgerEntry]]:
    return _loader(context, "ledger", context.services.requests.ledger_entries_of)


def _loader(
    context: RequestContext, name: str, read: Callable[[Sequence[str]], Awaitable[Mapping[str, list[T]]]]
) -> DataLoader[str, list[T]]:
    if name not in context.loaders:

        async def load(ids: list[str]) -> list[list[T]]:
            found = await read(ids)
            return [found.get(id, []) for id in ids]

        context.loaders[name] = DataLoader(load_fn=load)
    return cast("DataLoader[str, list[T]]", context.loaders[name])
