"""The seam for wire protocols: what one reads from a request, and what it is given to write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar


class Endpoint(StrEnum):
    COMPLETION = "completion"
    MODELS = "models"


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int
    """Includes cached_tokens."""
    output_tokens: int
    """Includes reasoning_tokens."""
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(slots=True, kw_only=True)
class Call:
    """A request for a completion, in no protocol's terms; a protocol's own needs are fields of a subclass."""

    model: str
    prompt_bytes: int
    last_text: str
    """Of the last message, where a directive may stand."""
    max_output_tokens: int | None = None
    stream: bool = False
    choices: int = 1
    metadata: Mapping[str, Any] = field(default_factory=dict)


CallT = TypeVar("CallT", bound=Call)


@dataclass(frozen=True, slots=True)
class Answer:
    id: str
    """Unique in this process; a protocol puts its own prefix before it."""
    created: int
    pieces: Sequence[str]
    """The text, in the parts that a stream sends."""
    truncated: bool
    """The call's maximum of output tokens ended it."""
    usage: Usage
    report_usage: bool = True


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer. `kind` tells a protocol which limit was met: parallel, requests or tokens."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    kind: str | None = None
    retry_after: float | str | None = None
    retry_after_ms: int | None = None


class Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class WireProtocol(ABC, Generic[CallT]):
    """One provider protocol. Pure: bytes in, bytes out; pace, failures and limits are not its concern."""

    name: ClassVar[str]
    request_id_header: ClassVar[bytes]

    @abstractmethod
    def endpoint(self, method: str, path: str) -> Endpoint | None:
        """What `path`, without the provider's prefix, is in this protocol."""

    @abstractmethod
    def credential(self, headers: Mapping[bytes, bytes]) -> str | None: ...

    @abstractmethod
    def read(self, path: str, body: bytes) -> CallT:
        """Raises Refused where the protocol's provider would refuse the request."""

    @abstractmethod
    def write(self, call: CallT, answer: Answer) -> bytes: ...

    @abstractmethod
    def write_stream(self, call: CallT, answer: Answer) -> list[bytes]:
        """The events, each of which is sent as a whole; the end marker is part of the last."""

    @abstractmethod
    def write_refusal(self, refusal: Refusal) -> bytes: ...

    @abstractmethod
    def write_stream_refusal(self, refusal: Refusal) -> bytes:
        """The event that ends a stream with an error."""

    @abstractmethod
    def write_models(self, models: Sequence[str]) -> bytes: ...
