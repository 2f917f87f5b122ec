"""One client's call, from its submission to its end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from app.execution.calls import RunningCall
from app.gateway.stream import ChunkStream
from app.providers.operations import OperationRequest
from app.requests.records import AttemptResult, NewRequest


@dataclass(frozen=True, slots=True)
class Admitted:
    """The call has a permit. `wait_seconds`: how long it waited for it. `permits_left`: how many more could start."""

    wait_seconds: float
    permits_left: int


@dataclass(slots=True, eq=False)
class LiveCall:
    """One client's call. `ended` has its last result; None where its lease was lost with its outcome unknown."""

    row: NewRequest
    request: OperationRequest
    parameters: dict[str, Any]
    admitted: asyncio.Future[Admitted]
    ended: asyncio.Future[AttemptResult | None]
    chunks: ChunkStream | None
    """None where the answer is not streamed."""
    since: float = field(default_factory=time.monotonic)
    running: RunningCall | None = None
    is_cancelled: bool = False
    written: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its row is there, and the first claim for it was made."""

    def may_repeat(self) -> bool:
        return self.chunks is None or not self.chunks.has_delivered
