"""Reads what the objects of one answer need besides their rows once for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar, cast

from strawberry.dataloader import DataLoader

from app.api.context import RequestContext

T = TypeVar("T")


def loader(
    context: RequestContext,
    name: str,
    read: Callable[[Sequence[str]], Awaitable[Mapping[str, T]]],
    missing: Callable[[], T],
) -> DataLoader[str, T]:
    """The answer's loader of that name. `missing` stands for an id that `read` does not answer."""
    if name not in context.loaders:

        async def load(ids: list[str]) -> list[T]:
            found = await read(ids)
            return [found[id] if id in found else missing() for id in ids]

        context.loaders[name] = DataLoader(load_fn=load)
    return cast("DataLoader[str, T]", context.loaders[name])
