"""A `tollgate serve` process for a whole module: its catalog's providers speak each protocol, at the emulator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import httpx

from app.access.records import AccessRole
from app.access.service import AccessService
from app.db.ids import new_id
from app.db.pool import Database
from app.providers.registry import ADAPTERS
from tests.conftest import dsn_of
from tests.emulator import Emulator
from tests.tollgate_process import TollgateProcess, free_port, tollgate

T = TypeVar("T")

PRICES: Final[dict[str, dict[str, Decimal]]] = {
    "chat-1": {"INPUT_TOKENS": Decimal("2.5"), "OUTPUT_TOKENS": Decimal(10), "CACHE_READ_TOKENS": Decimal("1.25")},
    "embed-1": {"INPUT_TOKENS": Decimal("0.02")},
    "image-1": {"IMAGES": Decimal(40_000)},
    "tts-1": {"CHARACTERS": Decimal(15)},
    "whisper-1": {"SECONDS": Decimal(100)},
    "moderation-1": {"INPUT_TOKENS": Decimal(0)},
    "rerank-1": {"SEARCHES": Decimal(2000)},
    "video-1": {"SECONDS": Decimal("100000.0000000001")},
}
"""Per 1,000,000 units."""
TYPES: Final = {
    "chat-1": "TEXT",
    "embed-1": "EMBEDDING",
    "image-1": "IMAGE",
    "tts-1": "TEXT_TO_SPEECH",
    "whisper-1": "SPEECH_TO_TEXT",
    "moderation-1": "MODERATION",
    "rerank-1": "RERANK",
    "video-1": "VIDEO",
}
MODELS: Final = {
    "oai": ("openai", ("chat-1", "embed-1", "image-1", "tts-1", "whisper-1", "moderation-1", "video-1")),
    "ant": ("anthropic", ("chat-1", "video-1")),
    "goo": ("google", ("chat-1", "video-1")),
    "coh": ("cohere", ("rerank-1",)),
    "narrow": ("openai", ("chat-1", "video-1")),  # one call at a time
    "frail": ("openai", ("chat-1",)),  # whose calls may take half a second
}


@dataclass(slots=True)
class GatewayServer:
    """`token` may call, `reader_token` may not."""

    url: str
    dsn: str
    emulator: Emulator
    process: TollgateProcess
    token: str
    reader_token: str

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    def http(self, **options: Any) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30, **options)

    def rows(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        return run(_fetch(self.dsn, statement, arguments))

    def served(self, request_id: str, provider: str = "oai") -> dict[str, Any]:
        """The one call that the emulator answered for a request."""
        self.emulator.wait(provider)
        calls = [call for call in self.emulator.record(provider)["calls"] if call["key"] == request_id]
        assert len(calls) == 1, calls
        return dict(calls[0])


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """In a thread: a loop of the tests, if there is one, stays as it is."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, coroutine).result()


async def _fetch(dsn: str, statement: str, arguments: Sequence[object]) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(statement, *arguments)
    finally:
        await connection.close()


@contextmanager
def gateway_server(
    server_dsn: str, template: str, emulator_url: str, data_dir: Path, **variables: str
) -> Iterator[GatewayServer]:
    """With a database and emulated providers of its own."""
    name = f"gateway_{uuid4().hex}"
    emulator = Emulator(emulator_url, uuid4().hex[:12])
    dsn = dsn_of(server_dsn, name)
    run(_fetch(server_dsn, f"CREATE DATABASE {name} TEMPLATE {template}", ()))
    try:
        token, reader_token = run(_fill(dsn, emulator))
        with tollgate(
            "serve",
            data_dir=data_dir,
            DATABASE_URL=dsn,
            TOLLGATE_PORT=str(free_port()),
            TOLLGATE_LOG_FORMAT="json",
            **{f"{provider.upper()}_API_KEY": f"secret-key-of-{provider}" for provider in MODELS},
            **variables,
        ) as process:
            process.wait_for("Tollgate serves at ")
            url = process.output.rpartition("Tollgate serves at ")[2].split()[0]
            yield GatewayServer(url, dsn, emulator, process, token, reader_token)
    finally:
        emulator.close()
        run(_fetch(server_dsn, f"DROP DATABASE {name} WITH (FORCE)", ()))


async def _fill(dsn: str, emulator: Emulator) -> tuple[str, str]:
    database = await Database.connect(dsn, size=2)
    try:
        async with database.transaction() as connection:
            for provider, (adapter, models) in MODELS.items():
                base_url = emulator.root(provider) + urlsplit(ADAPTERS[adapter].default_base_url).path
                provider_id = new_id()
                await connection.execute(
                    """
                    INSERT INTO llm_providers (id, workspace_id, name, display_name, adapter, base_url,
                                               max_parallel_requests, requests_per_minute, updated_at)
                    VALUES ($1, 'default', $2, $2, $3, $4, $5, 6000, now())
                    """,
                    provider_id,
                    provider,
                    adapter,
                    base_url,
                    1 if provider == "narrow" else 64,
                )
                for model in models:
                    await _insert_model(connection, provider_id, model)
            await connection.execute(
                """
                UPDATE llm_models SET total_timeout_seconds = 0.5
                 WHERE provider_id = (SELECT id FROM llm_providers WHERE name = 'frail')
                """
            )
        access = AccessService(database)
        operator = await access.create("a program", AccessRole.OPERATOR)
        reader = await access.create("a reader", AccessRole.READER)
        return operator.token, reader.token
    finally:
        await database.close()


async def _insert_model(connection: Any, provider_id: str, model: str) -> None:
    model_id, prices = new_id(), PRICES[model]
    await connection.execute(
        """
        INSERT INTO llm_models (id, workspace_id, provider_id, model_id, display_name, model_type,
                                cost_input_per_million, cost_output_per_million, max_output_tokens, updated_at)
        VALUES ($1, 'default', $2, $3, $3, $4, $5, $6, 100000, now())
        """,
        model_id,
        provider_id,
        model,
        TYPES[model],
        prices.get("INPUT_TOKENS"),
        prices.get("OUTPUT_TOKENS"),
    )
    for unit, price in prices.items():
        if unit not in ("INPUT_TOKENS", "OUTPUT_TOKENS"):
            await connection.execute(
                """
                INSERT INTO model_prices (id, model_id, unit, price_per_million, effective_at)
                VALUES ($1, $2, $3, $4, '2020-01-01')
                """,
                new_id(),
                model_id,
                unit,
                price,
            )


def told(text: str = "Hello", **behaviour: Any) -> str:
    """A last message that tells the emulator how to answer it."""
    return f"{text} [[emulate {json.dumps(behaviour)}]]" if behaviour else text
