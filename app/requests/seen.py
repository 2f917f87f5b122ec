"""What a follower of a streamed answer has seen of it, and what of the whole answer is still to come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from app.providers.messages import Reasoning, Refusal, Text, ToolCall
from app.providers.operations import (
    ChatOutput,
    Choice,
    Chunk,
    Finished,
    OperationOutput,
    ReasoningDelta,
    RefusalDelta,
    StreamStarted,
    StreamUsage,
    TextDelta,
    ToolCallDelta,
    TranscriptionOutput,
)


@dataclass(slots=True)
class _SeenCall:
    index: int
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _SeenChoice:
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    proofs: set[str] = field(default_factory=set)
    """Signatures and redacted thoughts."""
    calls: list[_SeenCall] = field(default_factory=list)
    """In the order of their first deltas."""
    has_finished: bool = False


class Seen:
    """Collects the chunks of one lease that a follower got."""

    def __init__(self) -> None:
        self._choices: dict[int, _SeenChoice] = {}

    def add(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            if not isinstance(chunk, (StreamStarted, StreamUsage)):
                _add(self._choices.setdefault(chunk.choice, _SeenChoice()), chunk)

    def is_empty(self) -> bool:
        return not self._choices

    def rest_of(self, output: OperationOutput) -> list[Chunk] | None:
        """What is left of `output`; None where what was seen is not its beginning. What is no text has no chunks."""
        if isinstance(output, TranscriptionOutput):
            output = ChatOutput([Choice([Text(output.text)])])
        if not isinstance(output, ChatOutput):
            return [] if self.is_empty() else None
        if not {choice.index for choice in output.choices}.issuperset(self._choices):
            return None
        rest: list[Chunk] = []
        for choice in output.choices:
            of_choice = _rest(choice, self._choices.get(choice.index, _SeenChoice()))
            if of_choice is None:
                return None
            rest += of_choice
        return rest


def _add(seen: _SeenChoice, chunk: TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | Finished) -> None:
    match chunk:
        case TextDelta():
            seen.text.append(chunk.text)
        case RefusalDelta():
            seen.refusal.append(chunk.text)
        case ReasoningDelta():
            seen.reasoning.append(chunk.text)
            seen.proofs.update(proof for proof in (chunk.signature, chunk.redacted) if proof is not None)
        case ToolCallDelta():
            call = next((call for call in seen.calls if call.index == chunk.index), None)
            if call is None:
                call = _SeenCall(chunk.index)
                seen.calls.append(call)
            call.id = chunk.id or call.id
            call.name = chunk.name or call.name
            call.arguments.append(chunk.arguments)
        case Finished():
            seen.has_finished = True


def _rest(choice: Choice, seen: _SeenChoice) -> list[Chunk] | None:
    reasoning = _after("".join(part.text for part in choice.parts if isinstance(part, Reasoning)), seen.reasoning)
    text = _after(choice.text, seen.text)
    refusal = _after("".join(part.text for part in choice.parts if isinstance(part, Refusal)), seen.refusal)
    calls = _rest_of_calls(choice.tool_calls, seen.calls, choice.index)
    if reasoning is None or text is None or refusal is None or calls is None:
        return None
    rest: list[Chunk] = []
    if reasoning:
        rest.append(ReasoningDelta(reasoning, choice=choice.index))
    for part in choice.parts:
        if isinstance(part, Reasoning):
            if part.signature is not None and part.signature not in seen.proofs:
                rest.append(ReasoningDelta(signature=part.signature, choice=choice.index))
            if part.redacted is not None and part.redacted not in seen.proofs:
                rest.append(ReasoningDelta(redacted=part.redacted, choice=choice.index))
    if text:
        rest.append(TextDelta(text, choice=choice.index))
    if refusal:
        rest.append(RefusalDelta(refusal, choice=choice.index))
    rest += calls
    if choice.finish_reason is not None and not seen.has_finished:
        rest.append(Finished(choice.finish_reason, choice=choice.index))
    return rest


def _rest_of_calls(calls: Sequence[ToolCall], seen: Sequence[_SeenCall], choice: int) -> list[Chunk] | None:
    if len(seen) > len(calls):
        return None
    rest: list[Chunk] = []
    for call, known in zip(calls, seen, strict=False):
        arguments = _after(call.arguments, known.arguments)
        if arguments is None or (known.id and known.id != call.id) or (known.name and known.name != call.name):
            return None
        if arguments:
            rest.append(ToolCallDelta(known.index, arguments=arguments, choice=choice))
    next_index = 1 + max((known.index for known in seen), default=-1)
    for index, call in enumerate(calls[len(seen) :], start=next_index):
        rest.append(ToolCallDelta(index, call.id, call.name, call.arguments, choice))
    return rest


def _after(whole: str, pieces: Sequence[str]) -> str | None:
    beginning = "".join(pieces)
    return whole[len(beginning) :] if whole.startswith(beginning) else None
