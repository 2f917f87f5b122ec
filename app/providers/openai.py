"""OpenAI's chat completions, as OpenAI, xAI, DeepSeek, Mistral, vLLM, Ollama and other compatible servers speak it.

Wire format: https://platform.openai.com/docs/api-reference/chat (checked 2026-11-20).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from app.errors import InvalidResponse
from app.prices.records import Usage
from app.providers.http_errors import error_for_status
from app.providers.protocol import ModelCall, ModelResponse, WireRequest, WireResponse

_MAX_TOKENS: Final = 2**30
"""Of each count, so that their sum fits the column of settled tokens."""


class OpenAIAdapter:
    """The base URL includes the version: "https://api.openai.com/v1"."""

    name: Final = "openai"
    default_base_url: Final = "https://api.openai.com/v1"

    def render(self, call: ModelCall) -> WireRequest:
        messages = call.payload.get("messages")
        if messages is None:
            messages = [{"role": "user", "content": call.payload["input"]}]
        return WireRequest(
            url=call.base_url.rstrip("/") + "/chat/completions",
            headers={
                "authorization": f"Bearer {call.credential.get_secret_value()}",
                "content-type": "application/json",
                "accept": "application/json",
                "x-request-id": call.request_id,
            },
            body=orjson.dumps({**call.parameters, "model": call.model_id, "messages": messages}),
        )

    def parse(self, response: WireResponse) -> ModelResponse:
        request_id = response.headers.get("x-request-id")
        if not 200 <= response.status < 300:
            message = _error_message(response.body)
            raise error_for_status(response.status, message, headers=response.headers, provider_request_id=request_id)
        body = _object(response, request_id)
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices or not all(_is_choice(choice) for choice in choices):
            raise _invalid("it has no choices with a message", response, request_id)
        content = choices[0]["message"].get("content")
        model = body.get("model")
        reason = choices[0].get("finish_reason")
        return ModelResponse(
            output={"choices": choices},
            output_text=content if isinstance(content, str) else None,
            usage=read_usage(body.get("usage"), response, request_id),
            finish_reason=reason if isinstance(reason, str) else None,
            response_model=model if isinstance(model, str) else None,
            provider_request_id=request_id,
        )


def read_usage(usage: Any, response: WireResponse, request_id: str | None) -> Usage | None:
    """`prompt_tokens` includes cached ones, `total_tokens` all there is. None where it is left out."""
    if usage is None:
        return None
    if not isinstance(usage, Mapping):
        raise _invalid("its usage is no object", response, request_id)
    if usage.get("prompt_tokens") is None or usage.get("completion_tokens") is None:
        return None
    details = usage.get("prompt_tokens_details") or {}
    counts = [usage["prompt_tokens"], usage["completion_tokens"]]
    # DeepSeek names its cached tokens on the top level: https://api-docs.deepseek.com/guides/kv_cache
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
    counts.append(cached if cached is not None else usage.get("prompt_cache_hit_tokens") or 0)
    if not all(isinstance(count, int) and not isinstance(count, bool) and 0 <= count < _MAX_TOKENS for count in counts):
        raise _invalid("its token counts are no counts", response, request_id)
    input_tokens, output_tokens, cache_read_tokens = counts
    # xAI and Gemini leave reasoning out of completion_tokens, not out of total_tokens, and bill it as output:
    # https://docs.x.ai/docs/key-information/consumption-and-rate-limits
    total = usage.get("total_tokens")
    if isinstance(total, int) and input_tokens + output_tokens < total < _MAX_TOKENS:
        output_tokens = total - input_tokens
    if cache_read_tokens > input_tokens:
        raise _invalid("it counts more cached tokens than prompt tokens", response, request_id)
    return Usage(input_tokens, output_tokens, cache_read_tokens)


def _is_choice(choice: Any) -> bool:
    return isinstance(choice, dict) and isinstance(choice.get("message"), dict)


def _object(response: WireResponse, request_id: str | None) -> dict[str, Any]:
    try:
        body = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        raise _invalid("it is no JSON", response, request_id) from None
    if not isinstance(body, dict):
        raise _invalid("it is no object", response, request_id)
    return body if b"\\u0000" not in response.body else _without_nul(body)


def _without_nul(value: Any) -> Any:
    """PostgreSQL holds no NUL: it becomes the replacement character."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    return value


def _invalid(reason: str, response: WireResponse, request_id: str | None) -> InvalidResponse:
    return InvalidResponse(
        f"the provider's answer cannot be used: {reason}", http_status=response.status, provider_request_id=request_id
    )


def _error_message(body: bytes) -> str:
    """`error.message` where the body has one; a plain text body else."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:500].decode(errors="replace").replace("\0", "\ufffd")
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return error.replace("\0", "\ufffd") if isinstance(error, str) else ""
