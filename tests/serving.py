"""A real HTTP process's application, served by uvicorn on a port of its own within the test's event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from pydantic import SecretStr

from app.access.records import AccessRole
from app.api.services import ApiServices
from app.bootstrap import open_api
from app.config import Config
from app.main import create_app

ADMIN_TOKEN = "admin-token-of-the-tests"


@dataclass(frozen=True, slots=True)
class Api:
    """`http` sends the admin's token."""

    url: str
    http: httpx.AsyncClient
    services: ApiServices

    @property
    def websocket_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/graphql"

    async def post(self, query: str, variables: dict[str, Any] | None = None, *, token: str = ADMIN_TOKEN) -> Any:
        """The response map of an operation."""
        response = await self.http.post(
            "/graphql",
            json={"query": query, "variables": variables},
            headers={"authorization": f"Bearer {token}"},
        )
        assert response.status_code == 200, response.text
        return response.json()

    async def data(self, query: str, variables: dict[str, Any] | None = None, *, token: str = ADMIN_TOKEN) -> Any:
        """The data of an operation that has no errors."""
        body = await self.post(query, variables, token=token)
        assert "errors" not in body, body
        return body["data"]

    async def token(self, role: AccessRole) -> str:
        return (await self.services.access.create(f"a {role.lower()}", role)).token


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they stay with pytest


@asynccontextmanager
async def serve_api(dsn: str, data_dir: Path, **settings: Any) -> AsyncIterator[Api]:
    """`settings` are fields of Config."""
    config = Config(database_url=SecretStr(dsn), data_dir=data_dir, admin_token=SecretStr(ADMIN_TOKEN), **settings)
    opened: list[ApiServices] = []

    @asynccontextmanager
    async def open_services() -> AsyncIterator[ApiServices]:
        async with open_api(config) as services:
            await services.access.ensure_admin(config.admin_token, data_dir)
            opened.append(services)
            yield services

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(create_app(open_services), log_level="warning", access_log=False, lifespan="on"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        ready = asyncio.create_task(server.ready.wait())
        await asyncio.wait((ready, serving), return_when=asyncio.FIRST_COMPLETED)
        assert server.started, "the application did not start"
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with httpx.AsyncClient(
            base_url=url, headers={"authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=30
        ) as client:
            yield Api(url, client, opened[0])
    finally:
        server.should_exit = True
        await serving
