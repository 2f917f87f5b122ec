"""An API process that is killed or frozen while its clients' answers stream."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.chaos.aftermath import WORKER, Trial
from tests.tollgate_process import TollgateProcess, free_port, tollgate

TOKEN = "admin-token-of-the-tests"


class Gateway:
    def __init__(self, process: TollgateProcess, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    @asynccontextmanager
    async def streaming(self, ref: str, count: int) -> AsyncIterator[list[httpx.Response]]:
        """So many clients whose answers have begun."""
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}, timeout=30) as client:
            body = {"model": ref, "messages": [{"role": "user", "content": "Hello"}], "stream": True}
            sent = [client.build_request("POST", f"{self.url}/v1/chat/completions", json=body) for _ in range(count)]
            yield await asyncio.gather(*(client.send(request, stream=True) for request in sent))


@contextmanager
def serving(trial: Trial, data_dir: Path, **settings: str) -> Iterator[Gateway]:
    port = free_port()
    variables = {
        **WORKER,
        "DATABASE_URL": trial.work.dsn,
        "TOLLGATE_PORT": str(port),
        "TOLLGATE_ADMIN_TOKEN": TOKEN,
        "TOLLGATE_DRAIN_SECONDS": "5",
        "ACME_API_KEY": "secret-key-of-acme",
        **settings,
    }
    with tollgate("serve", data_dir=data_dir, **variables) as process:
        process.wait_for("Tollgate serves at")
        yield Gateway(process, port)


async def _rest(response: httpx.Response) -> str:
    return (await response.aread()).decode()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def test_an_api_process_killed_in_mid_stream_leaves_no_call_open(trial: Trial, data_dir: Path) -> None:
    trial.work.configure(output_tokens=20, chunk_ms=100)
    with trial.worker() as worker, serving(trial, data_dir) as gateway:
        # Nothing of the provider waits for this worker: it looks by itself for what others have left.
        async with gateway.streaming(trial.work.ref, 3) as responses:
            gateway.process.kill()
            for response in responses:
                with pytest.raises(httpx.RemoteProtocolError):
                    await response.aread()
        assert await trial.check() == {"FAILED": 3}
        assert worker.process.poll() is None
    assert {call["outcome"] for call in trial.work.record()["calls"]} == {"abandoned"}
    errors = await trial.work.value("SELECT array_agg(DISTINCT error ->> 'code') FROM model_requests")
    assert errors == ["LEASE_LOST"]


async def test_calls_that_waited_at_a_killed_api_process_end_too(trial: Trial, data_dir: Path) -> None:
    trial.work.configure(fault="hang", errors_first=3)
    with serving(trial, data_dir) as gateway:
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}, timeout=30) as client:
            body = {"model": trial.work.ref, "messages": [{"role": "user", "content": "Hello"}]}
            url = f"{gateway.url}/v1/chat/completions"
            clients = [asyncio.create_task(client.post(url, json=body)) for _ in range(5)]
            await trial.work.seen(running=3)
            # Behind those that wait: when this one is turned away, they are all written.
            late = await client.post(url, json=body, headers={"x-tollgate-wait-seconds": "0.5"})
            assert late.status_code == 429
            gateway.process.kill()
            ends = await asyncio.gather(*clients, return_exceptions=True)
    assert {type(end) for end in ends} <= {httpx.RemoteProtocolError, httpx.ReadError}
    # What comes in its place looks after what was left, with no worker beside it.
    with serving(trial, data_dir) as gateway:
        assert await trial.check() == {"FAILED": 5, "CANCELLED": 1}
        async with gateway.streaming(trial.work.ref, 2) as responses:
            assert all("[DONE]" in text for text in await asyncio.gather(*map(_rest, responses)))
    assert await trial.check() == {"FAILED": 5, "CANCELLED": 1, "COMPLETED": 2}


async def test_a_frozen_api_process_is_gone_before_its_leases_end(trial: Trial, data_dir: Path) -> None:
    trial.work.configure(fault="hang_midway", errors_first=3, output_tokens=20)
    with trial.worker(), serving(trial, data_dir) as gateway:
        async with gateway.streaming(trial.work.ref, 3):
            queued = await trial.submit(3)
            gateway.process.process.send_signal(signal.SIGSTOP)
            assert await asyncio.to_thread(gateway.process.process.wait, 10) == -signal.SIGKILL
        assert await trial.check() == {"FAILED": 3, "COMPLETED": 3}
    assert {(await trial.work.get(id)).status for id in queued} == {"COMPLETED"}


async def test_an_api_process_that_is_told_to_stop_lets_its_streams_end(trial: Trial, data_dir: Path) -> None:
    trial.work.configure(output_tokens=20, chunk_ms=50)
    with serving(trial, data_dir) as gateway:
        async with gateway.streaming(trial.work.ref, 3) as responses:
            gateway.process.process.send_signal(signal.SIGTERM)
            assert all("[DONE]" in text for text in await asyncio.gather(*map(_rest, responses)))
        assert await asyncio.to_thread(gateway.process.end, 20) == 0
    assert await trial.check() == {"COMPLETED": 3}


async def test_an_api_process_that_is_told_twice_to_stop_ends_its_streams(trial: Trial, data_dir: Path) -> None:
    trial.work.configure(fault="hang_midway", output_tokens=20)
    with serving(trial, data_dir, TOLLGATE_DRAIN_SECONDS="3600") as gateway:
        async with gateway.streaming(trial.work.ref, 3) as responses:
            for number in (signal.SIGINT, signal.SIGTERM):
                gateway.process.process.send_signal(number)
            texts = await asyncio.gather(*map(_rest, responses))
        assert await asyncio.to_thread(gateway.process.end, 20) == 0
    # What had come, and why no more does.
    assert all('"delta":' in text and '"error":' in text and "[DONE]" not in text for text in texts)
    assert await trial.check() == {"FAILED": 3}
