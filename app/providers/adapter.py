"""What every wire protocol gives: from our request to its HTTP request, and from its answer to ours. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from pydantic import SecretStr

from app.prices.records import Usage
from app.providers.operations import Chunk, Operation, OperationOutput, OperationRequest


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call to be made.

    `model_id` is the provider's own name of the model. `parameters` have OpenAI's names, `max_tokens` for the maximum
    output; they were found valid for the model. `allows_unknown`: parameters that the protocol does not know are
    passed on as they are, instead of being refused.
    """

    model_id: str
    base_url: str
    credential: SecretStr
    request: OperationRequest
    parameters: Mapping[str, Any]
    request_id: str
    stream: bool = False
    allows_unknown: bool = False


@dataclass(frozen=True, slots=True)
class WireRequest:
    """An HTTP request. The headers hold the credential and are not shown."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class WireResponse:
    """A whole HTTP response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ModelResponse:
    """`usage` is None where the provider left it out, which is then estimated."""

    output: OperationOutput
    usage: Usage | None = None
    response_model: str | None = None
    response_id: str | None = None
    provider_request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The provider works on it: ask again with `poll` after `poll_seconds`.

    `otherwise`: what stands where the work is done, but what is asked for now cannot be had.
    """

    poll: WireRequest
    poll_seconds: float
    otherwise: ModelResponse | None = None


class StreamReader(Protocol):
    """Reads one streamed answer. Raises ProviderError for an error in the stream, InvalidResponse for nonsense."""

    def read(self, event: str | None, data: str) -> Sequence[Chunk]:
        """The chunks of one server-sent event."""
        ...

    def end(self) -> None:
        """The connection has ended. Raises ConnectionFailed where the answer was not whole."""
        ...


class Adapter(Protocol):
    """One wire protocol. `default_base_url` is used where the row of the provider of the adapter's name has none."""

    @property
    def name(self) -> str: ...

    @property
    def default_base_url(self) -> str: ...

    @property
    def operations(self) -> frozenset[Operation]: ...

    def render(self, call: ModelCall) -> WireRequest:
        """Raises InvalidRequest for what the protocol cannot express: nothing is silently dropped."""
        ...

    def parse(self, call: ModelCall, response: WireResponse) -> ModelResponse | Unfinished:
        """Raises a ProviderError for an error status and InvalidResponse for what the protocol does not allow."""
        ...

    def stream_reader(self, call: ModelCall) -> StreamReader:
        """For an answer of status 200 to a call with `stream`. Any other status goes to `parse`."""
        ...


@runtime_checkable
class KeepsFiles(Protocol):
    """An adapter whose outputs may hold URLs that answer to the provider's credential alone."""

    def file_request(self, url: str, credential: SecretStr) -> WireRequest:
        """What fetches the file at one of them."""
        ...
