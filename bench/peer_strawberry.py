"""The peer: the same catalog by stock Strawberry, asyncpg and dataloaders on Starlette, as their guides show it.

`python -m bench.peer_strawberry DSN PORT [--cached]`; `--cached` adds Strawberry's parser and validation caches.
"""

# mypy: disallow-untyped-decorators=False
# strawberry.field answers Any, so that mypy takes it for an untyped decorator.

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, TypeAlias

import asyncpg
import strawberry
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.dataloader import DataLoader
from strawberry.extensions import ParserCache, ValidationCache

Row: TypeAlias = "asyncpg.Record"
Info: TypeAlias = strawberry.Info[Any, None]


@strawberry.type
class LlmProvider:
    id: strawberry.ID
    name: str
    display_name: str
    max_parallel_requests: int
    requests_per_minute: int
    is_enabled: bool

    @strawberry.field
    async def models(self, info: Info) -> list[LlmModel]:
        models: list[LlmModel] = await info.context["models_of"].load(self.id)
        return models


@strawberry.type
class LlmModel:
    id: strawberry.ID
    provider_id: strawberry.Private[str]
    model_id: str
    display_name: str
    model_type: str
    context_window: int | None
    max_output_tokens: int | None
    cost_input_per_million: Decimal | None
    cost_output_per_million: Decimal | None
    status: str
    is_default: bool

    @strawberry.field
    async def provider(self, info: Info) -> LlmProvider:
        provider: LlmProvider = await info.context["providers"].load(self.provider_id)
        return provider


@strawberry.type
class PageInfo:
    has_next_page: bool
    end_cursor: str | None


@strawberry.type
class LlmModelConnection:
    nodes: list[LlmModel]
    page_info: PageInfo


@strawberry.type
class Query:
    @strawberry.field
    async def llm_providers(self, info: Info) -> list[LlmProvider]:
        return [_provider(row) for row in await info.context["pool"].fetch("SELECT * FROM llm_providers ORDER BY name")]

    @strawberry.field
    async def llm_models(self, info: Info, first: int = 50, after: str | None = None) -> LlmModelConnection:
        rows = await info.context["pool"].fetch(
            "SELECT * FROM llm_models WHERE id > $1 ORDER BY id LIMIT $2", after or "", first + 1
        )
        nodes = [_model(row) for row in rows[:first]]
        return LlmModelConnection(
            nodes=nodes, page_info=PageInfo(has_next_page=len(rows) > first, end_cursor=nodes[-1].id if nodes else None)
        )

    @strawberry.field
    async def llm_model(self, info: Info, ref: str) -> LlmModel | None:
        provider_name, _, model_id = ref.partition(":")
        row = await info.context["pool"].fetchrow(
            "SELECT m.* FROM llm_models m JOIN llm_providers p ON p.id = m.provider_id "
            "WHERE p.name = $1 AND m.model_id = $2",
            provider_name,
            model_id,
        )
        return None if row is None else _model(row)


def _provider(row: Row) -> LlmProvider:
    return LlmProvider(
        id=row["id"],
        name=row["name"],
        display_name=row["display_name"],
        max_parallel_requests=row["max_parallel_requests"],
        requests_per_minute=row["requests_per_minute"],
        is_enabled=row["is_enabled"],
    )


def _model(row: Row) -> LlmModel:
    return LlmModel(
        id=row["id"],
        provider_id=row["provider_id"],
        model_id=row["model_id"],
        display_name=row["display_name"],
        model_type=row["model_type"],
        context_window=row["context_window"],
        max_output_tokens=row["max_output_tokens"],
        cost_input_per_million=row["cost_input_per_million"],
        cost_output_per_million=row["cost_output_per_million"],
        status=row["status"],
        is_default=row["is_default"],
    )


class Endpoint(GraphQL[Any, None]):
    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> dict[str, Any]:
        pool = request.app.state.pool

        async def load_models(provider_ids: list[str]) -> list[Sequence[LlmModel]]:
            rows = await pool.fetch(
                "SELECT * FROM llm_models WHERE provider_id = ANY ($1) ORDER BY model_id", provider_ids
            )
            grouped: dict[str, list[LlmModel]] = {provider_id: [] for provider_id in provider_ids}
            for row in rows:
                grouped[row["provider_id"]].append(_model(row))
            return [grouped[provider_id] for provider_id in provider_ids]

        async def load_providers(provider_ids: list[str]) -> list[LlmProvider]:
            rows = await pool.fetch("SELECT * FROM llm_providers WHERE id = ANY ($1)", provider_ids)
            found = {row["id"]: _provider(row) for row in rows}
            return [found[provider_id] for provider_id in provider_ids]

        return {
            "pool": pool,
            "models_of": DataLoader(load_fn=load_models),
            "providers": DataLoader(load_fn=load_providers),
        }


def create_app(dsn: str, *, cached: bool) -> Starlette:
    extensions = [lambda: ParserCache(maxsize=100), lambda: ValidationCache(maxsize=100)] if cached else []
    schema = strawberry.Schema(query=Query, extensions=extensions)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with asyncpg.create_pool(dsn, min_size=8, max_size=8) as pool:
            app.state.pool = pool
            yield

    return Starlette(routes=[Route("/graphql", Endpoint(schema))], lifespan=lifespan)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peer_strawberry")
    parser.add_argument("dsn")
    parser.add_argument("port", type=int)
    parser.add_argument("--cached", action="store_true")
    options = parser.parse_args()
    uvicorn.run(
        create_app(options.dsn, cached=options.cached),
        port=options.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
