"""How one call will be answered: decided whole, before anything is sent, from the behaviour and a seeded chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from app.providers.emulator.behaviour import Behaviour, Count, Fault, Span
from app.providers.emulator.wire import Answer, Call, Refusal, Usage

DEFAULT_REPLY = "Hello from the emulator."
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Plan:
    answer: Answer
    delay_seconds: float
    chunk_seconds: float
    fault: Fault | None
    refusal: Refusal | None
    """Injected. It comes after the delay, in place of the answer."""

    @property
    def tokens(self) -> int:
        """What the call weighs against tokens per minute: nothing where it is refused."""
        return 0 if self.refusal else self.answer.usage.input_tokens + self.answer.usage.output_tokens


def make_plan(call: Call, behaviour: Behaviour, *, failing: bool, chance: Random, answer_id: str, created: int) -> Plan:
    """`failing`: this call meets the behaviour's error or fault."""
    fault = behaviour.fault if failing else None
    refusal = None
    if failing and behaviour.fault is None:
        status = behaviour.error or 500
        message = behaviour.error_message or f"The emulator was told to answer with {status}."
        refusal = Refusal(status, message, retry_after=behaviour.retry_after)
    delay = behaviour.latency_ms
    if call.stream and behaviour.first_byte_ms is not None:
        delay = behaviour.first_byte_ms
    pieces, usage, truncated = _compose(call, behaviour, chance)
    if fault is Fault.HUGE_BODY:
        pieces = ["x" * behaviour.huge_body_bytes]
    return Plan(
        answer=Answer(answer_id, created, pieces, truncated, usage, not behaviour.missing_usage),
        delay_seconds=_draw(delay, chance) / 1000,
        chunk_seconds=_draw(behaviour.chunk_ms, chance) / 1000,
        fault=fault,
        refusal=refusal,
    )


def text_tokens(size_bytes: int) -> int:
    return max(1, size_bytes // _BYTES_PER_TOKEN)


def _compose(call: Call, behaviour: Behaviour, chance: Random) -> tuple[Sequence[str], Usage, bool]:
    input_tokens = text_tokens(call.prompt_bytes) if behaviour.input_tokens is None else behaviour.input_tokens
    reply = behaviour.reply
    if behaviour.output_tokens is not None:
        output_tokens = _draw_count(behaviour.output_tokens, chance)
    else:
        output_tokens = text_tokens(len((reply or DEFAULT_REPLY).encode())) + behaviour.reasoning_tokens
    wanted = output_tokens
    if call.max_output_tokens is not None:
        output_tokens = min(output_tokens, call.max_output_tokens)
    truncated = output_tokens < wanted
    reasoning_tokens = min(behaviour.reasoning_tokens, output_tokens)
    visible = output_tokens - reasoning_tokens
    if reply is None:
        pieces = _default_pieces(visible, behaviour)
    else:
        cut = reply[: visible * _BYTES_PER_TOKEN] if truncated else reply
        step = behaviour.chunk_tokens * _BYTES_PER_TOKEN
        pieces = [cut[start : start + step] for start in range(0, len(cut), step)]
    cached_tokens = min(behaviour.cached_tokens, input_tokens)
    usage = Usage(input_tokens, output_tokens * call.choices, cached_tokens, reasoning_tokens * call.choices)
    return pieces, usage, truncated


def _default_pieces(tokens: int, behaviour: Behaviour) -> Sequence[str]:
    step = behaviour.chunk_tokens
    if behaviour.output_tokens is None:
        text = DEFAULT_REPLY[: tokens * _BYTES_PER_TOKEN]
        size = step * _BYTES_PER_TOKEN
        return [text[start : start + size] for start in range(0, len(text), size)]
    whole, rest = divmod(tokens, step)
    return ["word" + " word" * (step - 1) + " "] * whole + (["word " * rest] if rest else [])


def _draw(span: Span, chance: Random) -> float:
    return chance.uniform(*span) if isinstance(span, tuple) else span


def _draw_count(count: Count, chance: Random) -> int:
    return chance.randint(*count) if isinstance(count, tuple) else count
