"""Token counts as OpenAI's endpoints, and the servers compatible with them, write them.

Wire format: https://platform.openai.com/docs/api-reference/chat/object (checked 2026-11-20).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from app.errors import InvalidResponse
from app.prices.records import Usage

_MAX_TOKENS: Final = 2**30
"""Of each count, so that their sum fits the column of settled tokens."""


def read_chat_usage(usage: Any, provider_request_id: str | None = None) -> Usage | None:
    """`prompt_tokens` includes cached ones, `total_tokens` all there is. None where the provider left it out.

    Raises InvalidResponse for counts that cannot be.
    """
    return _read(_chat_counts, usage, provider_request_id)


def _chat_counts(usage: Mapping[str, Any]) -> Usage | None:
    if usage.get("prompt_tokens") is None or usage.get("completion_tokens") is None:
        return None
    prompt = _details(usage, "prompt_tokens_details")
    completion = _details(usage, "completion_tokens_details")
    input_tokens = _count(usage["prompt_tokens"])
    output_tokens = _count(usage["completion_tokens"])
    # DeepSeek names its cached tokens on the top level: https://api-docs.deepseek.com/guides/kv_cache
    cached = prompt.get("cached_tokens")
    cache_read_tokens = _count(cached if cached is not None else usage.get("prompt_cache_hit_tokens") or 0)
    # Written tokens are none of the read ones: https://developers.openai.com/api/docs/guides/prompt-caching
    cache_write_tokens = _count(prompt.get("cache_write_tokens") or 0)
    reasoning_tokens = _count(completion.get("reasoning_tokens") or 0)
    # xAI and Gemini leave reasoning out of completion_tokens, not out of total_tokens, and bill it as output:
    # https://docs.x.ai/docs/key-information/consumption-and-rate-limits
    total = usage.get("total_tokens")
    if isinstance(total, int) and _is_count(total) and input_tokens + output_tokens < total:
        output_tokens = total - input_tokens
    if reasoning_tokens > output_tokens:
        output_tokens = _count(output_tokens + reasoning_tokens)
    if cache_read_tokens + cache_write_tokens > input_tokens:
        raise ValueError("it counts more cached tokens than prompt tokens")
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=cache_read_tokens,
        cache_write_tokens=cache_write_tokens,
        reasoning_tokens=reasoning_tokens,
    )


def read_input_usage(usage: Any, provider_request_id: str | None = None) -> Usage | None:
    """Of an endpoint that writes no tokens, such as embeddings: `prompt_tokens`, or `total_tokens` without it."""
    return _read(_input_counts, usage, provider_request_id)


def _input_counts(usage: Mapping[str, Any]) -> Usage | None:
    tokens = usage.get("prompt_tokens")
    if tokens is None:
        tokens = usage.get("total_tokens")
    return None if tokens is None else Usage(input_tokens=_count(tokens))


def read_responses_usage(usage: Any, provider_request_id: str | None = None) -> Usage | None:
    """As the Responses API, images and audio name the counts: `input_tokens` and `output_tokens`."""
    return _read(_responses_counts, usage, provider_request_id)


def _responses_counts(usage: Mapping[str, Any]) -> Usage | None:
    if usage.get("input_tokens") is None:
        return None
    input_details = _details(usage, "input_tokens_details")
    input_tokens = _count(usage["input_tokens"])
    output_tokens = _count(usage.get("output_tokens") or 0)
    reasoning_tokens = _count(_details(usage, "output_tokens_details").get("reasoning_tokens") or 0)
    cache_read_tokens = _count(input_details.get("cached_tokens") or 0)
    cache_write_tokens = _count(input_details.get("cache_write_tokens") or 0)
    if cache_read_tokens + cache_write_tokens > input_tokens or reasoning_tokens > output_tokens:
        raise ValueError("it counts more cached or reasoning tokens than there are tokens")
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=cache_read_tokens,
        cache_write_tokens=cache_write_tokens,
        reasoning_tokens=reasoning_tokens,
    )


def chat_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def responses_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = usage.get(name)
    return details if isinstance(details, Mapping) else {}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_TOKENS


def _count(value: Any) -> int:
    if not _is_count(value):
        raise ValueError("its token counts are no counts")
    count: int = value
    return count


def _read(
    read: Callable[[Mapping[str, Any]], Usage | None], usage: Any, provider_request_id: str | None
) -> Usage | None:
    if usage is None:
        return None
    try:
        if not isinstance(usage, Mapping):
            raise ValueError("its usage is no object")
        return read(usage)
    except ValueError as error:
        raise InvalidResponse(
            f"the provider's answer cannot be used: {error}", http_status=200, provider_request_id=provider_request_id
        ) from None
