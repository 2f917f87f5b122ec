"""Reading videos and their files, and deleting them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from tempfile import TemporaryFile
from typing import IO, Final

from app.db.pool import Database
from app.errors import Conflict, NotFound, ValidationError
from app.requests.service import RequestService
from app.requests.validation import is_storable_text
from app.videos import repository
from app.videos.records import ModelRequestStatus, Video, VideoFile

MAX_PAGE: Final = 100
_PIECE_BYTES: Final = 256 * 1024


class VideoService:
    def __init__(self, database: Database, requests: RequestService) -> None:
        self._database = database
        self._requests = requests

    async def get(self, id: str, *, workspace_id: str) -> Video:
        """Raises NotFound, also for one whose file was deleted."""
        if is_storable_text(id):
            async with self._database.connection() as connection:
                video = await repository.get_video(connection, workspace_id, id)
            if video is not None:
                return video
        raise NotFound("Video", id, path=("video_id",))

    async def page(
        self, *, workspace_id: str, after: str | None, limit: int, newest_first: bool
    ) -> tuple[list[Video], bool]:
        """Up to `limit` videos, and whether there are more. Raises ValidationError."""
        if not 1 <= limit <= MAX_PAGE:
            raise ValidationError("limit", limit, f"between 1 and {MAX_PAGE}")
        if after is not None and not is_storable_text(after):
            raise ValidationError("after", after, "the id of a video")
        async with self._database.connection() as connection:
            videos = await repository.list_videos(
                connection, workspace_id, after=after, limit=limit + 1, newest_first=newest_first
            )
        return videos[:limit], len(videos) > limit

    async def delete(self, id: str, *, workspace_id: str) -> bool:
        """Deletes the file of a completed video, and cancels one that is not made yet. Answers whether a file is gone.

        The request is kept in any case, as an account of what it used and cost. Raises NotFound.
        """
        video = await self.get(id, workspace_id=workspace_id)
        if video.status in (ModelRequestStatus.PENDING, ModelRequestStatus.PROCESSING):
            try:
                await self._requests.cancel(id, workspace_id=workspace_id)
                return False
            except Conflict:
                # It has ended meanwhile.
                pass
        async with self._database.transaction() as connection:
            return await repository.delete_file(connection, workspace_id, id)

    async def file(self, id: str, *, workspace_id: str) -> VideoFile:
        """Raises NotFound, and Conflict where the video has not been made."""
        video = await self.get(id, workspace_id=workspace_id)
        if video.status is not ModelRequestStatus.COMPLETED:
            raise Conflict(f"the video {id} has no content: it is {video.status.lower()}", path=("video_id",))
        async with self._database.connection() as connection:
            file = await repository.get_file(connection, workspace_id, id)
        if file is None:
            raise NotFound("Video", id, path=("video_id",))
        return file

    @asynccontextmanager
    async def open(self, id: str, *, workspace_id: str) -> AsyncIterator[tuple[int, AsyncGenerator[bytes]]]:
        """The size of a file that is kept here, and its pieces. Raises NotFound where it is deleted meanwhile.

        They wait on disk for their reader, who may be slow, so that no connection to the database waits for him.
        """
        with TemporaryFile() as spool:
            size = 0
            async with self._database.transaction() as connection:
                async for piece in repository.read_file(connection, workspace_id, id):
                    size += await asyncio.to_thread(spool.write, piece)
            if not size:
                raise NotFound("VideoFile", id, path=("video_id",))
            spool.seek(0)
            async with aclosing(_pieces(spool)) as pieces:
                yield size, pieces


async def _pieces(file: IO[bytes]) -> AsyncGenerator[bytes]:
    while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
        yield piece
