"""Asking after the work that a provider does in its own time."""

from __future__ import annotations

import asyncio
from typing import Final

from app.errors import CallTimeout, ConnectionFailed, ProviderError, ProviderUnavailable, RateLimited
from app.execution.attempt import Timeouts
from app.providers.adapter import Adapter, ModelCall, ModelResponse, Unfinished
from app.providers.transport import Transport

FIRST_POLL_SECONDS: Final = 0.5
"""Doubled with each poll, up to what the protocol says: what is soon there is soon fetched."""
FAILED_POLL_SECONDS: Final = 1.0
"""At least so long after a poll that failed."""
MAX_FAILED_POLLS: Final = 8
"""In a row."""


async def poll(
    unfinished: Unfinished, adapter: Adapter, model_call: ModelCall, transport: Transport, timeouts: Timeouts
) -> ModelResponse:
    """Until the work is done. Raises ProviderError where it failed, or can no longer be asked after."""
    wait, failures, asked_wait = FIRST_POLL_SECONDS, 0, 0.0
    while True:
        await asyncio.sleep(max(min(wait, unfinished.poll_seconds), asked_wait))
        wait *= 2
        try:
            # A look at work under way is no start of a call: no permit is needed.
            answer = await transport.send(
                unfinished.poll, connect_seconds=timeouts.connect, read_seconds=timeouts.read, send_by=None
            )
            parsed = adapter.parse(model_call, answer)
        except ProviderError as error:
            failures += 1
            if failures >= MAX_FAILED_POLLS or not _passes(error):
                if unfinished.otherwise is None:
                    raise
                return unfinished.otherwise
            # The work goes on at the provider. To give it up would be to have it done, and billed, once more.
            asked_wait = error.retry_after_seconds or FAILED_POLL_SECONDS
            continue
        if not isinstance(parsed, Unfinished):
            return parsed
        unfinished, failures, asked_wait = parsed, 0, 0.0


def _passes(error: ProviderError) -> bool:
    """Whether it is the poll that failed, which the next need not. What failed itself is told with status 200."""
    kinds = (ConnectionFailed, CallTimeout, RateLimited, ProviderUnavailable)
    return isinstance(error, kinds) and (error.http_status is None or error.http_status >= 400)
