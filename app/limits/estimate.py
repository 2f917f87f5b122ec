"""How many tokens a request may take: what its start reserves from tokensPerMinute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

_BYTES_PER_TOKEN: Final = 2
"""Prose has about four UTF-8 bytes to a token, code three, digits and rare scripts fewer; two errs on the safe side."""
_TOKENS_PER_MESSAGE: Final = 8
"""Roles and separators around each message, and the priming of the answer."""

MAX_OUTPUT_PARAMETERS: Final = ("max_completion_tokens", "max_tokens")


def estimate_input_tokens(payload: Mapping[str, Any], parameters: Mapping[str, Any] | None = None) -> int:
    """An upper estimate for {"messages": [...]} or {"input": ...}; what is not text counts by its JSON.

    Parameters that are no plain values (tools, response_format) are a part of the prompt.
    """
    schemas = sum(_tokens_of(value) for value in (parameters or {}).values() if isinstance(value, (dict, list)))
    messages = payload.get("messages")
    if not isinstance(messages, list):
        return schemas + _tokens_of(payload.get("input")) + _TOKENS_PER_MESSAGE
    return schemas + sum(map(_tokens_of_message, messages)) + _TOKENS_PER_MESSAGE


def max_output_tokens(parameters: Mapping[str, Any], model_maximum: int | None, default: int) -> int:
    """What the caller allows, else what the model can, else `default`; times the number of answers asked for."""
    allowed = next((parameters[name] for name in MAX_OUTPUT_PARAMETERS if parameters.get(name) is not None), None)
    if allowed is None:
        allowed = model_maximum if model_maximum is not None else default
    answers = parameters.get("n")
    return int(allowed) * (answers if isinstance(answers, int) and answers > 0 else 1)


def _tokens_of_message(message: Mapping[str, Any]) -> int:
    tokens = _tokens_of(message.get("content")) + _TOKENS_PER_MESSAGE
    if len(message) > 2:
        # Tool calls, a name: they count besides the role and the content.
        tokens += _tokens_of({name: value for name, value in message.items() if name not in ("role", "content")})
    return tokens


def _tokens_of(content: Any) -> int:
    size = len(content.encode()) if isinstance(content, str) else len(orjson.dumps(content))
    return -(-size // _BYTES_PER_TOKEN)
