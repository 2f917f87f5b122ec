"""Files that a provider keeps: fetched with its credential, which goes to the provider and to nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from app.catalog.snapshots import SnapshotHolder
from app.credentials.environment import EnvironmentCredentials
from app.db.pool import Database
from app.errors import AuthenticationFailed, InvalidResponse, NotFound, ProviderUnavailable, TollgateError
from app.execution.attempt import Timeouts
from app.execution.downloads import Downloads, Elsewhere
from app.execution.steps import CatalogEndpoints
from app.providers.registry import ADAPTERS
from app.providers.transport import StreamedResponse, Transport
from tests.catalog_rows import insert_model

KEY = "secret-key-of-acme"


@dataclass(slots=True)
class Files:
    """A server of files. `answers`: status and headers by path; `seen`: the path and key of each request."""

    url: str = ""
    answers: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    seen: list[tuple[str, str | None]] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        path = head[0].split()[1]
        sent = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        self.seen.append((path, sent.get("x-goog-api-key")))
        status, headers = self.answers.get(path, (200, {"content-type": "video/mp4"}))
        lines = [f"HTTP/1.1 {status} Told", *(f"{name}: {value}" for name, value in headers.items())]
        lines += ["content-length: 4", "connection: close", "", "film"]
        writer.write("\r\n".join(lines).encode())
        await writer.drain()
        writer.close()


@pytest.fixture
async def files() -> AsyncIterator[Files]:
    files = Files()
    server = await asyncio.start_server(files.handle, "127.0.0.1", 0)
    async with server:
        files.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield files


@dataclass(frozen=True, slots=True)
class Fetching:
    downloads: Downloads
    provider_id: str

    async def __call__(self, url: str) -> bytes | str:
        """The content, or where the client is sent."""
        async with self.downloads.open(self.provider_id, url, name="v1") as found:
            if isinstance(found, Elsewhere):
                return found.url
            assert isinstance(found, StreamedResponse)
            assert found.size_bytes == 4
            return b"".join([piece async for piece in found.pieces()])


@pytest.fixture
async def fetch(database: Database, files: Files) -> AsyncIterator[Fetching]:
    async with database.connection() as connection:
        row = await insert_model(connection, adapter="google", base_url=f"{files.url}/v1beta")
    snapshots = SnapshotHolder(database)
    await snapshots.refresh()
    async with Transport(max_connections=4) as transport:
        downloads = Downloads(
            snapshots,
            transport,
            adapters=ADAPTERS,
            credentials=EnvironmentCredentials({"ACME_API_KEY": KEY}),
            endpoints=CatalogEndpoints(),
            timeouts=Timeouts(connect=5, read=5, total=5),
        )
        yield Fetching(downloads, row.provider_id)
    await snapshots.stop()


async def test_a_file_is_fetched_with_the_providers_key(fetch: Fetching, files: Files) -> None:
    assert await fetch(f"{files.url}/v1beta/files/a:download?alt=media") == b"film"
    assert files.seen == [("/v1beta/files/a:download?alt=media", KEY)]


async def test_redirects_within_the_provider_are_followed(fetch: Fetching, files: Files) -> None:
    files.answers["/a"] = (302, {"location": "/download/a"})
    files.answers["/download/a"] = (307, {"location": f"{files.url}/b"})
    assert await fetch(f"{files.url}/a") == b"film"
    assert files.seen == [("/a", KEY), ("/download/a", KEY), ("/b", KEY)]


async def test_the_client_is_sent_elsewhere_and_the_key_is_not(fetch: Fetching, files: Files) -> None:
    other = files.url.replace("127.0.0.1", "localhost") + "/signed"
    files.answers["/a"] = (302, {"location": other})
    assert await fetch(f"{files.url}/a") == other
    assert files.seen == [("/a", KEY)]


@pytest.mark.parametrize("url", ["http://elsewhere.test/a", "https://127.0.0.1/a", "file:///a", "nonsense", ""])
async def test_what_was_never_the_providers_is_not_asked_for(fetch: Fetching, files: Files, url: str) -> None:
    with pytest.raises(NotFound, match="VideoFile 'v1'"):
        await fetch(url)
    assert files.seen == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, NotFound), (404, NotFound), (410, NotFound), (401, AuthenticationFailed), (503, ProviderUnavailable)],
)
async def test_a_status_is_told_as_what_it_means(
    fetch: Fetching, files: Files, status: int, kind: type[TollgateError]
) -> None:
    files.answers["/a"] = (status, {})
    with pytest.raises(kind):
        await fetch(f"{files.url}/a")


async def test_redirects_come_to_an_end(fetch: Fetching, files: Files) -> None:
    files.answers["/a"] = (302, {"location": "/a"})
    with pytest.raises(InvalidResponse, match="redirects"):
        await fetch(f"{files.url}/a")
    assert len(files.seen) == 6


async def test_a_provider_that_is_gone_is_not_found(fetch: Fetching, files: Files) -> None:
    with pytest.raises(NotFound, match="LlmProvider"):
        await Fetching(fetch.downloads, "gone")(f"{files.url}/a")
