"""Fetches the files that a provider keeps, with its credential, for clients that have none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NoReturn
from urllib.parse import urljoin, urlsplit

from app.catalog.snapshots import SnapshotHolder
from app.errors import InvalidResponse, NotFound
from app.execution.attempt import Timeouts
from app.execution.steps import Credentials, Endpoints
from app.providers.adapter import Adapter, KeepsFiles
from app.providers.http_errors import error_for_status
from app.providers.transport import StreamedResponse, Transport
from app.providers.wire import plain_error_text

MAX_FILE_BYTES: Final = 4 * 1024**3
_MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_GONE: Final = frozenset({403, 404, 410})
"""Google answers 403 for a file that it no longer has."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The file is at a URL of another host, where the provider's credential has no business."""

    url: str


class Downloads:
    def __init__(
        self,
        snapshots: SnapshotHolder,
        transport: Transport,
        *,
        adapters: Mapping[str, Adapter],
        credentials: Credentials,
        endpoints: Endpoints,
        timeouts: Timeouts,
    ) -> None:
        self._snapshots = snapshots
        self._transport = transport
        self._adapters = adapters
        self._credentials = credentials
        self._endpoints = endpoints
        self._timeouts = timeouts

    @asynccontextmanager
    async def open(self, provider_id: str, url: str, *, name: str) -> AsyncIterator[StreamedResponse | Elsewhere]:
        """The file at a URL that one of the provider's answers named. The credential goes to the provider alone.

        `name`: what errors call the file. Raises NotFound where the provider has it no longer, and ProviderError.
        """
        provider = self._snapshots.current.provider(provider_id)
        adapter = self._adapters.get(provider.adapter) if provider is not None else None
        base_url = self._endpoints.base_url(provider, adapter) if provider is not None and adapter is not None else None
        if provider is None or base_url is None or not isinstance(adapter, KeepsFiles):
            raise NotFound("LlmProvider", provider_id)
        if _origin(url) != _origin(base_url):
            raise NotFound("VideoFile", name)
        for _ in range(_MAX_REDIRECTS + 1):
            request = adapter.file_request(url, self._credentials.for_provider(provider.name))
            async with self._transport.stream(
                request, connect_seconds=self._timeouts.connect, read_seconds=self._timeouts.read, send_by=None
            ) as response:
                if response.status == 200:
                    yield response
                    return
                if response.status not in _REDIRECTS or "location" not in response.headers:
                    await _refuse(response, name)
                url = urljoin(url, response.headers["location"])
            if _origin(url) != _origin(base_url):
                yield Elsewhere(url)
                return
        raise InvalidResponse(f"the provider redirects more than {_MAX_REDIRECTS} times")


async def _refuse(response: StreamedResponse, name: str) -> NoReturn:
    if response.status in _GONE:
        raise NotFound("VideoFile", name)
    whole = await response.whole()
    raise error_for_status(whole.status, plain_error_text(whole), headers=whole.headers)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        raise InvalidResponse("the provider names a file by what is no URL") from None
    return parts.scheme, parts.hostname, port or {"http": 80, "https": 443}.get(parts.scheme)
