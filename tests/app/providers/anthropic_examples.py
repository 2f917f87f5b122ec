"""A client's body, and a provider's answer whole and streamed, in the protocol of Anthropic's messages."""

from __future__ import annotations

import json
from typing import Any

from app.prices.records import Usage
from app.providers.anthropic import AnthropicAdapter, AnthropicMessagesDialect
from app.providers.dialect import ClientCall
from app.providers.messages import (
    Part,
    Reasoning,
    Text,
    ToolCall,
)

ADAPTER = AnthropicAdapter()
DIALECT = AnthropicMessagesDialect()

CLIENT_BODY: dict[str, Any] = {
    "model": "anthropic:claude",
    "max_tokens": 9000,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
                {"type": "image", "source": {"type": "url", "url": "https://images.test/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
                {"type": "redacted_thinking", "data": "opaque"},
                {"type": "text", "text": "I will look."},
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": ["it", 1.5]}},
                {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "a duck"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "broken", "is_error": True},
                {"type": "text", "text": "Well?", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ],
    "stop_sequences": ["END"],
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "thinking": {"type": "enabled", "budget_tokens": 2048},
    "tools": [
        {
            "name": "look",
            "description": "Looks.",
            "input_schema": {"type": "object", "properties": {"at": {}}},
            "strict": True,
            "cache_control": {"type": "ephemeral"},
        }
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "metadata": {"user_id": "u1"},
    "service_tier": "standard_only",
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
}

MESSAGE: dict[str, Any] = {
    "id": "msg_01",
    "type": "message",
    "role": "assistant",
    "model": "claude-1-20260101",
    "content": [
        {"type": "thinking", "thinking": "Let me think.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "b3BhcXVl"},
        {"type": "text", "text": "Looking. ", "citations": None},
        {"type": "tool_use", "id": "toolu_9", "name": "look", "input": {"at": "it"}},
        {"type": "tool_use", "id": "toolu_10", "name": "stop", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 10,
        "cache_creation_input_tokens": 200,
        "cache_read_input_tokens": 3000,
        "output_tokens": 40,
        "output_tokens_details": {"thinking_tokens": 25},
        "service_tier": "standard",
    },
}
USAGE = Usage(3210, 40, cache_read_tokens=3000, cache_write_tokens=200, reasoning_tokens=25)

START = {**MESSAGE, "content": [], "stop_reason": None, "usage": {**MESSAGE["usage"], "output_tokens": 1}}
STREAM: list[dict[str, Any]] = [
    {"type": "message_start", "message": START},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Let me "}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "think."}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": MESSAGE["content"][1]},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "Look"}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "ing. "}},
    {"type": "content_block_stop", "index": 2},
    {"type": "content_block_start", "index": 3, "content_block": {**MESSAGE["content"][3], "input": {}}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": ""}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": '{"at"'}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": ':"it"}'}},
    {"type": "content_block_stop", "index": 3},
    {"type": "content_block_start", "index": 4, "content_block": MESSAGE["content"][4]},
    {"type": "content_block_stop", "index": 4},
    {"type": "an_event_of_tomorrow", "what": 1},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 40, "output_tokens_details": {"thinking_tokens": 25}},
    },
    {"type": "message_stop"},
]
PARTS: list[Part] = [
    Reasoning("Let me think.", signature="c2ln"),
    Reasoning(redacted="b3BhcXVl"),
    Text("Looking. "),
    ToolCall("toolu_9", "look", '{"at":"it"}'),
    ToolCall("toolu_10", "stop", "{}"),
]


def decode(**changes: Any) -> ClientCall:
    body = {name: value for name, value in {**CLIENT_BODY, **changes}.items() if value is not ...}
    return DIALECT.decode(json.dumps(body).encode(), {})
