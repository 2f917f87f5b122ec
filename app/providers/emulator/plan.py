"""How one call will be answered: decided whole, before anything is sent, from the behaviour and a seeded chance."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from app.providers.emulator.behaviour import Behaviour, Fault, Span
from app.providers.emulator.composition import compose
from app.providers.emulator.wire import Answer, Call, GenerationCall, Refusal


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
    answer = compose(call, behaviour, chance, answer_id=answer_id, created=created)
    if fault is Fault.HUGE_BODY and isinstance(call, GenerationCall):
        answer.pieces = ["x" * behaviour.huge_body_bytes]
    return Plan(
        answer=answer,
        delay_seconds=_draw(delay, chance) / 1000,
        chunk_seconds=_draw(behaviour.chunk_ms, chance) / 1000,
        fault=fault,
        refusal=refusal,
    )


def _draw(span: Span, chance: Random) -> float:
    return chance.uniform(*span) if isinstance(span, tuple) else span
