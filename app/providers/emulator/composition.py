"""What an answer consists of: its text, tool calls, end and counts, from the call and the behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random

import orjson

from app.providers.emulator.behaviour import Behaviour, Count
from app.providers.emulator.schema_sample import sample
from app.providers.emulator.wire import ANY_TOOL, Answer, Call, GenerationCall, Stop, ToolCall, Usage

DEFAULT_REPLY = "Hello from the emulator."
DEFAULT_REASONING = "Let me think about this."
BYTES_PER_TOKEN = 4
_DEFAULT_SIZE = len(DEFAULT_REPLY)


def text_tokens(size_bytes: int) -> int:
    return max(1, size_bytes // BYTES_PER_TOKEN)


def compose(call: Call, behaviour: Behaviour, chance: Random, *, answer_id: str, created: int) -> Answer:
    if isinstance(call, GenerationCall):
        answer = _generate(call, behaviour, chance, answer_id, created)
    else:
        pieces = _split(DEFAULT_REPLY if behaviour.reply is None else behaviour.reply, behaviour)
        usage = _overridden(call.serves or Usage(), behaviour, chance)
        answer = Answer(answer_id, created, pieces, Stop.STOP, usage, flagged=behaviour.flagged)
    if behaviour.missing_usage or (behaviour.cut_stream_usage and call.stream):
        answer.report_usage = False
    return answer


def _overridden(usage: Usage, behaviour: Behaviour, chance: Random) -> Usage:
    """Only what the call is billed by: a rerank has no tokens, whatever is configured for the provider."""
    if behaviour.input_tokens is not None and usage.input_tokens:
        usage.input_tokens = behaviour.input_tokens
    if behaviour.output_tokens is not None and usage.output_tokens:
        usage.output_tokens = _draw(behaviour.output_tokens, chance)
    for name in ("images", "characters", "seconds", "searches"):
        configured = getattr(behaviour, name)
        if configured is not None and getattr(usage, name):
            setattr(usage, name, configured)
    return usage


def _generate(call: GenerationCall, behaviour: Behaviour, chance: Random, answer_id: str, created: int) -> Answer:
    input_tokens = text_tokens(call.prompt_bytes) if behaviour.input_tokens is None else behaviour.input_tokens
    tool_calls = _tool_calls(call, behaviour) if call.must_call or behaviour.tool_call else ()
    reply, stop_sequence = _reply(call, behaviour, bool(tool_calls))
    reasoning = behaviour.reasoning or (DEFAULT_REASONING if call.shows_reasoning else "")
    reasoning_tokens = behaviour.reasoning_tokens or (text_tokens(len(reasoning.encode())) if reasoning else 0)
    if behaviour.output_tokens is not None:
        output_tokens = _draw(behaviour.output_tokens, chance)
    else:
        size = _DEFAULT_SIZE if reply is None else len(reply.encode())
        if tool_calls:
            size += sum(len(made.name) + len(made.json.encode()) for made in tool_calls)
        output_tokens = text_tokens(size) + reasoning_tokens
    wanted = output_tokens
    if call.max_output_tokens is not None:
        output_tokens = min(output_tokens, call.max_output_tokens)
    truncated = output_tokens < wanted
    reasoning_tokens = min(reasoning_tokens, output_tokens)
    visible = output_tokens - reasoning_tokens
    if reply is None:
        pieces = _default_pieces(visible, behaviour)
    else:
        pieces = _split(reply[: visible * BYTES_PER_TOKEN] if truncated else reply, behaviour)
    cached_tokens = min(behaviour.cached_tokens, input_tokens)
    write_tokens = min(behaviour.cache_write_tokens, input_tokens - cached_tokens)
    choices = call.choices
    usage = Usage(input_tokens, output_tokens * choices, cached_tokens, write_tokens, reasoning_tokens * choices)
    if call.images:
        usage.images = call.images if behaviour.images is None else behaviour.images
    if truncated:
        stop, tool_calls = Stop.LENGTH, ()
    elif tool_calls:
        stop = Stop.TOOL_CALLS
    else:
        stop = Stop.STOP if stop_sequence is None else Stop.STOP_SEQUENCE
    answer = Answer(answer_id, created, pieces, behaviour.finish_reason or stop, usage)
    answer.tool_calls = tool_calls
    if reasoning:
        answer.reasoning = _split(reasoning, behaviour)
    answer.stop_sequence = stop_sequence
    return answer


def _reply(call: GenerationCall, behaviour: Behaviour, calls_tools: bool) -> tuple[str | None, str | None]:
    """The text and the stop sequence that ended it; None: the default text, whose length may be configured."""
    reply = behaviour.reply
    if reply is None:
        if calls_tools:
            return "", None
        if call.json_schema is not None:
            value = sample(call.json_schema) if call.json_schema else {"answer": DEFAULT_REPLY}
            return orjson.dumps(value).decode(), None
    if call.stop:
        text = DEFAULT_REPLY if reply is None else reply
        found = [(text.find(mark), mark) for mark in call.stop if mark and mark in text]
        if found:
            at, mark = min(found)
            return text[:at], mark
    return reply, None


def _tool_calls(call: GenerationCall, behaviour: Behaviour) -> Sequence[ToolCall]:
    if behaviour.tool_call:
        return [_tool_call(order.name, order.arguments, behaviour) for order in behaviour.tool_call]
    chosen = [tool for tool in call.tools if call.must_call in (ANY_TOOL, tool.name)][:1]
    return [_tool_call(tool.name, sample(tool.parameters) or {}, behaviour) for tool in chosen]


def _tool_call(name: str, arguments: dict[str, object], behaviour: Behaviour) -> ToolCall:
    return ToolCall(name, arguments, _split(orjson.dumps(arguments).decode(), behaviour))


def _split(text: str, behaviour: Behaviour) -> Sequence[str]:
    if behaviour.stream_chunks is not None:
        count = min(behaviour.stream_chunks, len(text))
        bounds = [len(text) * part // count for part in range(count + 1)] if count else []
        return [text[start:end] for start, end in pairwise(bounds)]
    size = behaviour.chunk_tokens * BYTES_PER_TOKEN
    return [text[start : start + size] for start in range(0, len(text), size)]


def _default_pieces(tokens: int, behaviour: Behaviour) -> Sequence[str]:
    if behaviour.output_tokens is None:
        return _split(DEFAULT_REPLY[: tokens * BYTES_PER_TOKEN], behaviour)
    if behaviour.stream_chunks is not None:
        return _split("word " * tokens, behaviour)
    step = behaviour.chunk_tokens
    whole, rest = divmod(tokens, step)
    return ["word" + " word" * (step - 1) + " "] * whole + (["word " * rest] if rest else [])


def _draw(count: Count, chance: Random) -> int:
    return chance.randint(*count) if isinstance(count, tuple) else count
