"""One attempt at a request: the value that passes through the steps, each of which fills in its part."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import SecretStr

from app.db.rows import LlmModel, LlmProvider
from app.limits.records import ClaimedRequest
from app.prices.records import CostReceipt, Usage
from app.providers.protocol import Adapter, ModelResponse, WireRequest


@dataclass(frozen=True, slots=True)
class Attempt:
    """`send_by` is the time.monotonic() instant at which the start's permit ends."""

    claim: ClaimedRequest
    send_by: float
    provider: LlmProvider | None = None
    model: LlmModel | None = None
    adapter: Adapter | None = None
    base_url: str | None = None
    credential: SecretStr | None = None
    wire_request: WireRequest | None = None
    response: ModelResponse | None = None
    usage: Usage | None = None
    receipt: CostReceipt | None = None
