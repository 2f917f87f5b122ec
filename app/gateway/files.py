"""Sends the file of a video to its client, piece by piece, from where it is kept: here, or at its provider."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final
from urllib.parse import urlsplit

import structlog
from starlette.types import Receive, Send

from app.db.trouble import DATABASE_TROUBLE
from app.errors import NotFound, TollgateError
from app.execution.downloads import MAX_FILE_BYTES, Downloads, Elsewhere
from app.gateway.http import disconnected
from app.videos.service import VideoService

_MEDIA_TYPE: Final = re.compile(r"video/[\w.+-]+", re.ASCII)

_log = structlog.get_logger(__name__)


class VideoFiles:
    def __init__(self, videos: VideoService, downloads: Downloads) -> None:
        self._videos = videos
        self._downloads = downloads

    async def send(self, id: str, workspace_id: str, receive: Receive, send: Send) -> None:
        """Ends where the client hangs up. Raises NotFound, Conflict and ProviderError before anything is sent."""
        sending = asyncio.create_task(self._send(id, workspace_id, send), name=f"video {id}")
        leaving = asyncio.create_task(disconnected(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, id: str, workspace_id: str, send: Send) -> None:
        file = await self._videos.file(id, workspace_id=workspace_id)
        media_type = file.media_type if _MEDIA_TYPE.fullmatch(file.media_type) else "video/mp4"
        if file.url is None:
            async with self._videos.open(id, workspace_id=workspace_id) as (size_bytes, pieces):
                await _stream(id, pieces, media_type, size_bytes, send)
        elif not file.needs_credential:
            await _redirect(id, file.url, send)
        else:
            async with self._downloads.open(file.provider_id, file.url, name=id) as found:
                if isinstance(found, Elsewhere):
                    await _redirect(id, found.url, send)
                else:
                    await _stream(id, found.pieces(MAX_FILE_BYTES), media_type, found.size_bytes, send)


async def _stream(id: str, pieces: AsyncGenerator[bytes], media_type: str, size_bytes: int | None, send: Send) -> None:
    async with aclosing(pieces):
        # What goes wrong before the first piece is there can still be told.
        piece = await anext(pieces, b"")
        headers = [(b"content-type", media_type.encode()), (b"x-tollgate-request-id", id.encode())]
        if size_bytes is not None:
            headers.append((b"content-length", str(size_bytes).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        try:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except (TollgateError, *DATABASE_TROUBLE) as error:
            # The response stays without its end, so that the client sees that it is not whole.
            _log.warning("video_broke_off", request_id=id, error=str(error))
            return
        await send({"type": "http.response.body", "body": b""})


async def _redirect(id: str, url: str, send: Send) -> None:
    """To a URL that needs no credential of the provider's."""
    if urlsplit(url).scheme not in ("http", "https") or not url.isascii() or not url.isprintable():
        raise NotFound("VideoFile", id)
    headers = [(b"location", url.encode()), (b"content-length", b"0"), (b"x-tollgate-request-id", id.encode())]
    await send({"type": "http.response.start", "status": 302, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
