"""What every wire adapter takes and gives. A file per wire protocol translates; none of them does I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import SecretStr

from app.prices.records import Usage


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call to be made. `model_id` is the provider's own name of the model; `payload` as ModelRequest holds it."""

    model_id: str
    base_url: str
    credential: SecretStr
    payload: Mapping[str, Any]
    parameters: Mapping[str, Any]
    request_id: str


@dataclass(frozen=True, slots=True)
class WireRequest:
    """An HTTP POST. The headers hold the credential and are not shown."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WireResponse:
    """A whole HTTP response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ModelResponse:
    """`output` is the answer as JSON, `output_text` its first text. `usage` is None where the provider left it out."""

    output: dict[str, Any]
    output_text: str | None
    usage: Usage | None
    finish_reason: str | None
    response_model: str | None
    provider_request_id: str | None


class Adapter(Protocol):
    """One wire protocol. `default_base_url` is used where the provider's row has none."""

    @property
    def name(self) -> str: ...

    @property
    def default_base_url(self) -> str: ...

    def render(self, call: ModelCall) -> WireRequest: ...

    def parse(self, response: WireResponse) -> ModelResponse:
        """Raises a ProviderError for an error status and InvalidResponse for what the protocol does not allow."""
        ...
