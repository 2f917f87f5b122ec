"""The seam for wire protocols: what one reads from a request, and what it is given to write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from app.providers.emulator.jobs import Jobs

JSON_TYPE = b"application/json"
EVENT_STREAM_TYPE = b"text/event-stream; charset=utf-8"


class Stop(StrEnum):
    """Why an answer ends; each protocol has words of its own for it."""

    STOP = "stop"
    STOP_SEQUENCE = "stop_sequence"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


@dataclass(slots=True)
class Usage:
    """What a call is billed for."""

    input_tokens: int = 0
    """Includes cached_tokens and cache_write_tokens."""
    output_tokens: int = 0
    """Includes reasoning_tokens."""
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    images: int = 0
    characters: int = 0
    seconds: float = 0
    """Of audio that was heard, or of video that was made."""
    searches: int = 0


@dataclass(slots=True)
class Head:
    """A request without its body."""

    method: str
    path: str
    """Without the provider's prefix."""
    full_path: str
    query: bytes
    headers: Mapping[bytes, bytes]

    @property
    def prefix(self) -> str:
        """The URL of the provider, as its client named the host."""
        host = self.headers.get(b"host", b"localhost").decode("latin-1")
        return f"http://{host}{self.full_path.removesuffix(self.path)}"


@dataclass(slots=True, kw_only=True)
class Call:
    """A request for something billed, in no protocol's terms; a protocol's own needs are fields of a subclass."""

    model: str
    prompt_bytes: int = 0
    last_text: str = ""
    """Where a directive may stand: the last message, the prompt, the query."""
    stream: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    serves: Usage | None = None
    """What the answer comes to if nothing else is configured; None: of generated text, to be composed."""


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    parameters: Mapping[str, Any]
    """A JSON Schema."""


ANY_TOOL = "*"


@dataclass(slots=True, kw_only=True)
class GenerationCall(Call):
    """For text, in the widest sense: of a language model."""

    max_output_tokens: int | None = None
    choices: int = 1
    tools: Sequence[Tool] = ()
    must_call: str | None = None
    """A tool's name, or ANY_TOOL."""
    json_schema: Mapping[str, Any] | None = None
    """Of the text; an empty one asks for any JSON object."""
    stop: Sequence[str] = ()
    shows_reasoning: bool = False
    images: int = 0
    """That the answer shows beside its text."""


CallT = TypeVar("CallT", bound=Call)


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: Mapping[str, Any]
    pieces: Sequence[str]
    """The arguments as JSON, in the parts that a stream sends."""

    @property
    def json(self) -> str:
        return "".join(self.pieces)


@dataclass(slots=True)
class Answer:
    id: str
    """Unique in this process; a protocol puts its own prefix before it."""
    created: int
    pieces: Sequence[str]
    """The text, in the parts that a stream sends."""
    stop: Stop
    usage: Usage
    report_usage: bool = True
    tool_calls: Sequence[ToolCall] = ()
    reasoning: Sequence[str] = ()
    stop_sequence: str | None = None
    flagged: bool = False
    """Of a moderation."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(slots=True)
class Body:
    """Of a 200. Each part is sent as a whole; a streamed one has no content length, and pauses between its parts."""

    parts: list[bytes]
    content_type: bytes = JSON_TYPE
    streamed: bool = False


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


def bad_request(message: str, param: str | None = None) -> Refused:
    return Refused(Refusal(400, message, param=param))


class Operation(ABC, Generic[CallT]):
    """What one path of a protocol does. Pure: pace, failures and limits are not its concern."""

    name: ClassVar[str]
    limited: ClassVar[bool] = True
    """Whether its calls count against the provider's limits."""

    @abstractmethod
    def read(self, head: Head, body: bytes) -> CallT:
        """Raises Refused where the protocol's provider would refuse the request."""

    @abstractmethod
    def write(self, call: CallT, answer: Answer) -> Body:
        """Of a stream each part is an event; the end marker is part of the last."""

    def write_broken_stream(self, call: CallT, refusal: Refusal, request_id: str) -> bytes | None:
        """The event that ends a stream with an error; None where the protocol has none."""
        return None


@dataclass(slots=True)
class Found:
    body: bytes
    content_type: bytes = JSON_TYPE


class Lookup(ABC):
    """A path that reads what there is: neither limited, billed nor recorded as a call."""

    needs_credential: ClassVar[bool] = True

    @abstractmethod
    def answer(self, head: Head, models: Sequence[str], jobs: Jobs) -> Found:
        """Raises Refused."""


class WireProtocol(ABC):
    """One provider protocol: its paths, its credentials and its errors."""

    name: ClassVar[str]
    request_id_header: ClassVar[bytes]

    @abstractmethod
    def route(self, head: Head) -> Operation[Any] | Lookup | None: ...

    @abstractmethod
    def credential(self, head: Head) -> str | None: ...

    @abstractmethod
    def write_refusal(self, refusal: Refusal, request_id: str) -> bytes: ...

    def refuse_credential(self, given: str | None) -> Refusal:
        return Refusal(401, "You didn't provide an API key." if given is None else "Incorrect API key provided.")
