"""Follows the answer of one request as it comes, whichever process runs its call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass

from app.errors import NotFound
from app.providers.operations import Chunk, output_from_json
from app.requests.events import RequestEvents
from app.requests.records import FINAL_STATUSES, ChunkGroup, ModelRequest, Progress, RequestAttemptStatus
from app.requests.seen import Seen
from app.requests.service import RequestService


@dataclass(frozen=True, slots=True)
class OutputPart:
    """A part of an answer. `is_restart`: what came before it is void. The last one has the finished `request`."""

    sequence: int
    attempt: int
    is_restart: bool
    chunks: tuple[Chunk, ...]
    request: ModelRequest | None = None


async def follow_output(
    requests: RequestService, events: RequestEvents, request_id: str, *, workspace_id: str
) -> AsyncGenerator[OutputPart, None]:
    """What there is already, then what comes, then the request. Raises NotFound.

    The parts since the last restart, put together, are the whole output of a request that has COMPLETED.
    """
    follower = _Follower()
    async with events.watch(request_id) as changed:
        while True:
            changed.clear()
            progress = await requests.progress(
                request_id, workspace_id=workspace_id, lease_id=follower.lease_id, after_sequence=follower.last_group
            )
            if progress is None:
                raise NotFound("ModelRequest", request_id, path=("id",))
            if progress.status in FINAL_STATUSES:
                break
            for part in follower.advance(progress):
                yield part
            await changed.wait()
    request = await requests.get(request_id, workspace_id=workspace_id)
    if request is None:
        raise NotFound("ModelRequest", request_id, path=("id",))
    attempts = (await requests.attempts_of([request_id])).get(request_id, ())
    succeeded = [attempt for attempt in attempts if attempt.status is RequestAttemptStatus.SUCCEEDED]
    for part in follower.finish(request, succeeded[-1].lease_id if succeeded else None):
        yield part


class _Follower:
    def __init__(self) -> None:
        self.lease_id: str | None = None
        self.last_group = -1
        self._attempt = 0
        self._seen = Seen()
        self._has_gap = False
        self._next_sequence = 0

    def advance(self, progress: Progress) -> Iterable[OutputPart]:
        if progress.lease_id is None:
            return
        is_restart = False
        if progress.lease_id != self.lease_id:
            is_restart = not self._seen.is_empty()
            self.lease_id, self.last_group = progress.lease_id, -1
            self._attempt = progress.attempt
            self._seen, self._has_gap = Seen(), False
        chunks = self._in_order(progress.groups)
        if chunks or is_restart:
            self._seen.add(chunks)
            yield self._part(chunks, is_restart=is_restart)

    def finish(self, request: ModelRequest, lease_id: str | None) -> Iterable[OutputPart]:
        """`lease_id`: under which it has succeeded."""
        self._attempt = request.attempt_count
        if request.output is not None:
            output = output_from_json(request.output)
            rest = self._seen.rest_of(output) if lease_id == self.lease_id or self._seen.is_empty() else None
            is_restart = rest is None
            if rest is None:
                rest = Seen().rest_of(output) or []
            if rest or is_restart:
                yield self._part(rest, is_restart=is_restart)
        yield self._part((), request=request)

    def _in_order(self, groups: Sequence[ChunkGroup]) -> list[Chunk]:
        """The chunks up to a group that is missing: what comes after it waits for the whole answer."""
        chunks: list[Chunk] = []
        for group in groups:
            self._has_gap = self._has_gap or group.sequence != self.last_group + 1
            self.last_group = group.sequence
            if not self._has_gap:
                chunks += group.chunks
        return chunks

    def _part(
        self, chunks: Sequence[Chunk], *, is_restart: bool = False, request: ModelRequest | None = None
    ) -> OutputPart:
        sequence = self._next_sequence
        self._next_sequence += 1
        return OutputPart(sequence, self._attempt, is_restart, tuple(chunks), request)
