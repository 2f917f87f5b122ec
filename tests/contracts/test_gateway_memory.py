"""What a thousand waiting clients cost the gateway. Linux only."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from tests.gateway_server import gateway_server, told

CLIENTS = 1000
MAX_GROWTH_BYTES = 100 * 1024 * 1024
PROMPT = "word " * 400


def resident_bytes(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.soak
@pytest.mark.parametrize("stream", [False, True])
async def test_a_thousand_waiting_clients_take_bounded_memory(
    server_dsn: str, template_database: str, emulator_url: str, tmp_path: Path, stream: bool
) -> None:
    with gateway_server(
        server_dsn, template_database, emulator_url, tmp_path / "data", TOLLGATE_GATEWAY_WAIT_SECONDS="600"
    ) as gateway:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with gateway.http(limits=limits) as http:

            async def call(text: str, model: str = "narrow:chat-1") -> httpx.Response:
                body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
                return await http.post("/v1/chat/completions", json=body, timeout=600)

            await asyncio.gather(*(call(PROMPT, "oai:chat-1") for _ in range(50)))
            holder = asyncio.create_task(call(told(fault="hang")))
            await asyncio.to_thread(lambda: gateway.emulator.wait("narrow", running=1))
            pid = gateway.process.process.pid
            before = resident_bytes(pid)
            calls = [asyncio.create_task(call(PROMPT)) for _ in range(CLIENTS)]
            waiting = "SELECT count(*) AS n FROM model_requests, pg_sleep(0.1) WHERE status = 'PENDING'"
            async with asyncio.timeout(120):
                while (await asyncio.to_thread(gateway.rows, waiting))[0]["n"] < CLIENTS:
                    pass
            growth = resident_bytes(pid) - before
            print(f"{growth / CLIENTS / 1024:.1f} kB for each of {CLIENTS} waiting clients")  # noqa: T201 - what is measured
            assert growth <= MAX_GROWTH_BYTES
            holder.cancel()
            answers = await asyncio.gather(*calls)
            assert {answer.status_code for answer in answers} == {200}
