"""What the service answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

from tollgate.errors import error_of

Data = TypeVar("Data")

FINISHED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


@dataclass(frozen=True, slots=True)
class Usage:
    """Cached tokens are included in `input_tokens`, reasoning tokens in `output_tokens`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer. `data` is its text, empty where it has none (a tool call, say).

    `cost` is exact and as the ledger has it; null where a price is not known. `response` is the whole answer in the
    shape of OpenAI's chat completions.
    """

    data: str
    usage: Usage
    cost: Decimal | None
    currency: str | None
    request_id: str
    response: Mapping[str, Any]
    wait_seconds: float | None = None
    """How long the call waited for its permit."""

    @property
    def output(self) -> Mapping[str, Any]:
        """The message of the first choice: `content`, `tool_calls`, `refusal`, ..."""
        message: Mapping[str, Any] = self.response["choices"][0]["message"]
        return message

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        return list(self.output.get("tool_calls") or ())

    @property
    def finish_reason(self) -> str | None:
        reason: str | None = self.response["choices"][0].get("finish_reason")
        return reason

    def __str__(self) -> str:
        return self.data


@dataclass(frozen=True, slots=True)
class Result(Generic[Data]):
    """The answer of a model that does not chat. `cost` is exact and as the ledger has it; null where a price is not
    known. `response` is the whole answer as the endpoint writes it; empty for sound.
    """

    data: Data
    cost: Decimal | None
    currency: str | None
    request_id: str
    response: Mapping[str, Any]
    wait_seconds: float | None = None
    """How long the call waited for its permit."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document's place in what was given, and how relevant it is."""

    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Image:
    """Its content or, where the provider keeps it, its URL."""

    data: bytes | None
    url: str | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of a moderation. `categories` and `scores` are the model's own, by name."""

    is_flagged: bool
    categories: Mapping[str, bool]
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed answer: `data` is its text. `tool_calls` are deltas as OpenAI writes them."""

    data: str = ""
    reasoning: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    finish_reason: str | None = None
    choice: int = 0

    def __str__(self) -> str:
        return self.data


@dataclass(frozen=True, slots=True)
class CostLine:
    """`quantity` units at `unit_price` per 1,000,000."""

    unit: str
    quantity: Decimal
    unit_price: Decimal | None
    amount: Decimal


@dataclass(frozen=True, slots=True)
class RequestError:
    code: str
    message: str
    is_retryable: bool
    http_status: int | None


@dataclass(frozen=True, slots=True)
class Request:
    """A call in Tollgate's queue, as it was when it was read. `status`: PENDING, PROCESSING, or one of FINISHED.

    `data` is the text of its answer, and `output` the whole of it. `lines` are the receipt that `cost` is the sum of.
    """

    id: str
    status: str
    model: str
    data: str | None
    output: Any
    usage: Usage | None
    cost: Decimal | None
    currency: str | None
    lines: tuple[CostLine, ...]
    error: RequestError | None
    metadata: Mapping[str, Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED

    def raise_for_error(self) -> None:
        """Raises what it failed with; CallCancelled where it was cancelled."""
        if self.status == "CANCELLED":
            raise error_of("CANCELLED", f"the request {self.id} was cancelled", request_id=self.id)
        if self.error is not None:
            raise error_of(self.error.code, self.error.message, request_id=self.id, http_status=self.error.http_status)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model of the catalog. `id` is its reference, "openai:gpt-4o". Costs are USD per 1,000,000 tokens."""

    id: str
    key: str
    """The id of its row, which is for life."""
    provider: str
    model_id: str
    display_name: str
    description: str | None
    model_type: str
    status: str
    capabilities: tuple[str, ...]
    context_window: int | None
    max_output_tokens: int | None
    cost_input_per_million: Decimal | None
    cost_output_per_million: Decimal | None
    is_default: bool


@dataclass(frozen=True, slots=True)
class UsageLine:
    unit: str
    quantity: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class UsageSummary:
    """What was used over a time, over all models or of one.

    `cost` is the exact sum of what the ledger has. `unpriced_calls` used something whose price was not known: what
    they came to is not in it. `usage` has the tokens; `lines` have all units, images and seconds too.
    """

    model_id: str | None
    requests: int
    calls: int
    """Of providers: a request that was tried again may have several."""
    estimated_calls: int
    unpriced_calls: int
    usage: Usage
    cost: Decimal
    currency: str
    lines: tuple[UsageLine, ...]
