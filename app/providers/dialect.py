"""The other side of a wire protocol: from a client's request to ours, and from our answer to what its SDK expects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from app.errors import TollgateError
from app.prices.records import Usage
from app.providers.adapter import ModelResponse
from app.providers.operations import Chunk, OperationRequest


@dataclass(frozen=True, slots=True)
class ClientCall:
    """What a client asked for. `model` is a ref, an id or an alias, as the client wrote it.

    `options` holds what only the encoding of the answer needs to know, such as a wanted audio format; `metadata` is
    the client's own.
    """

    model: str
    request: OperationRequest
    parameters: dict[str, Any]
    stream: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answered:
    """What a dialect needs to know of the call to write its answer. `model` as the client wrote it."""

    request_id: str
    model: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class EncodedError:
    """`body` is in the shape of which the SDK makes its exception."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class StreamWriter(Protocol):
    """Writes one streamed answer as server-sent events."""

    def start(self) -> bytes:
        """What comes before the first chunk; may be empty."""
        ...

    def write(self, chunk: Chunk) -> bytes:
        """The events of one chunk; may be empty, never held back without need."""
        ...

    def end(self, usage: Usage) -> bytes:
        """What comes after the last chunk."""
        ...

    def fail(self, error: TollgateError) -> bytes:
        """The event that tells of an error after the answer has begun."""
        ...


class Dialect(Protocol):
    """One endpoint of the gateway, such as OpenAI's chat completions."""

    def decode(self, body: bytes, headers: Mapping[str, str]) -> ClientCall:
        """Raises ValidationError naming the field as the client knows it; nothing is silently dropped."""
        ...

    def encode(self, call: ClientCall, response: ModelResponse, usage: Usage, answered: Answered) -> tuple[bytes, str]:
        """The body, and its media type."""
        ...

    def stream_writer(self, call: ClientCall, answered: Answered) -> StreamWriter: ...

    def encode_error(self, error: TollgateError) -> EncodedError: ...
