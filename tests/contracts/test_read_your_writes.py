"""What is written through one API process is read through another soon, and through the same one at once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from tests.tollgate_process import free_port, tollgate

TOKEN = "admin-token-of-the-two-processes"
WRITE = 'mutation($value: JSON!) { setSystemSetting(key: "shared", value: $value) { __typename } }'
READ = '{ systemSetting(key: "shared") { value } }'
ROUNDS = 20
SERVES = "Tollgate serves at "


async def post(client: httpx.AsyncClient, query: str, **variables: Any) -> Any:
    response = await client.post("/graphql", json={"query": query, "variables": variables})
    body = response.json()
    assert "errors" not in body, body
    return body["data"]


async def read(client: httpx.AsyncClient) -> Any:
    found = (await post(client, READ))["systemSetting"]
    return None if found is None else found["value"]


async def seconds_until(client: httpx.AsyncClient, value: int) -> float:
    began = time.perf_counter()
    while await read(client) != value:
        assert time.perf_counter() < began + 10, f"{value} was not to be read within 10 seconds"
    return time.perf_counter() - began


async def test_another_process_reads_a_write_within_a_tenth_of_a_second(database_dsn: str, tmp_path: Path) -> None:
    ports = (free_port(), free_port())
    common = {"DATABASE_URL": database_dsn, "TOLLGATE_ADMIN_TOKEN": TOKEN}
    with (
        tollgate("serve", data_dir=tmp_path / "a", TOLLGATE_PORT=str(ports[0]), **common) as first,
        tollgate("serve", data_dir=tmp_path / "b", TOLLGATE_PORT=str(ports[1]), **common) as second,
    ):
        for process in (first, second):
            await asyncio.to_thread(process.wait_for, SERVES)
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[0]}", headers=bearer(), timeout=30) as one,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[1]}", headers=bearer(), timeout=30) as other,
        ):
            delays = []
            for number in range(ROUNDS):
                writer, reader = (one, other) if number % 2 else (other, one)
                await read(reader)  # its answer is cached now
                await post(writer, WRITE, value=number)
                assert await read(writer) == number
                delays.append(await seconds_until(reader, number))
    # The machine may be busy with other tests: now and then a round takes longer.
    assert median(delays) < 0.1, delays


def bearer() -> dict[str, str]:
    return {"authorization": f"Bearer {TOKEN}"}
