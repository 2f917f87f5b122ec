"""One attempt at a request: the value that passes through the steps, each of which fills in its part."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct
from pydantic import SecretStr

from app.db.rows import LlmModel, LlmProvider
from app.limits.records import ClaimedRequest
from app.prices.records import CostReceipt, Usage
from app.providers.adapter import Adapter, ModelCall, ModelResponse, WireRequest
from app.providers.collect import Collector
from app.providers.operations import Chunk, OperationRequest

ChunkSink = Callable[[Sequence[Chunk]], Awaitable[None]]
"""Takes the chunks of a streamed answer as they come. Where it waits, the provider's connection waits."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds. `read`: between two pieces of an answer; `total`: from the start to its end."""

    connect: float
    read: float
    total: float


class Attempt(Struct, frozen=True):
    """`send_by` is the time.monotonic() instant at which the start's permit ends."""

    claim: ClaimedRequest
    request: OperationRequest
    parameters: Mapping[str, Any]
    send_by: float
    started: float
    """The time.monotonic() instant of the start, or earlier."""
    provider: LlmProvider | None = None
    model: LlmModel | None = None
    adapter: Adapter | None = None
    base_url: str | None = None
    timeouts: Timeouts | None = None
    credential: SecretStr | None = None
    model_call: ModelCall | None = None
    wire_request: WireRequest | None = None
    response: ModelResponse | None = None
    usage: Usage | None = None
    receipt: CostReceipt | None = None


class Progress:
    """How far a call has come, for when it ends before its time."""

    __slots__ = ("collector", "first_chunk_seconds", "is_accepted", "is_sent")

    def __init__(self) -> None:
        self.collector = Collector()
        self.first_chunk_seconds: float | None = None
        self.is_sent = False
        """Or being sent: what it comes to from then on is the provider's to say."""
        self.is_accepted = False
        """The provider works on it, whether it is asked after or not."""

    def add(self, chunks: Sequence[Chunk], started: float) -> None:
        """`started`: the attempt's."""
        if chunks and self.first_chunk_seconds is None:
            self.first_chunk_seconds = time.monotonic() - started
        for chunk in chunks:
            self.collector.add(chunk)
