"""From the chunks of a streamed chat answer to the whole answer."""

from __future__ import annotations

from typing import assert_never

from app.prices.records import Usage
from app.providers.adapter import ModelResponse
from app.providers.messages import Part, Reasoning, Refusal, Text, ToolCall
from app.providers.operations import (
    ChatOutput,
    Choice,
    Chunk,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    StreamStarted,
    StreamUsage,
    TextDelta,
    ToolCallDelta,
)


class Collector:
    """Collects one stream.

    Parts stand in the order of their first chunk. Deltas of one kind in a row are one part; a thought ends with its
    signature, and each redacted thought is one of its own. A later usage replaces an earlier one: some providers tell
    the input first (flagged as estimated, as the output is not known yet), and all of it at the end. The response has
    only what was told at the end; `usage` is the last that was told, for calls that end before their time.
    """

    def __init__(self) -> None:
        self._choices: dict[int, _ChoiceParts] = {}
        self._response_model: str | None = None
        self._response_id: str | None = None
        self.usage: Usage | None = None

    def add(self, chunk: Chunk) -> None:
        match chunk:
            case StreamStarted():
                self._response_model = chunk.response_model or self._response_model
                self._response_id = chunk.response_id or self._response_id
            case StreamUsage():
                self.usage = chunk.usage
            case _:
                choice = self._choices.get(chunk.choice)
                if choice is None:
                    choice = self._choices[chunk.choice] = _ChoiceParts()
                choice.add(chunk)

    def response(self) -> ModelResponse:
        """What was collected so far; a choice that has not ended has no finish reason."""
        choices = [
            Choice(parts=choice.parts(), finish_reason=choice.finish_reason, index=index)
            for index, choice in sorted(self._choices.items())
        ]
        return ModelResponse(
            output=ChatOutput(choices=choices),
            usage=None if self.usage is None or self.usage.estimated else self.usage,
            response_model=self._response_model,
            response_id=self._response_id,
        )


class _Growing:
    """One part that grows: its text is joined once, at the end, however many deltas it has."""

    __slots__ = ("delta", "id", "is_closed", "name", "redacted", "signature", "texts")

    def __init__(self, delta: type[TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta]) -> None:
        self.delta = delta
        self.texts: list[str] = []
        self.signature: str | None = None
        self.redacted: str | None = None
        self.id = ""
        self.name = ""
        self.is_closed = False

    def part(self) -> Part:
        text = "".join(self.texts)
        if self.delta is TextDelta:
            return Text(text)
        if self.delta is RefusalDelta:
            return Refusal(text)
        if self.delta is ReasoningDelta:
            return Reasoning(text=text, signature=self.signature, redacted=self.redacted)
        return ToolCall(id=self.id, name=self.name, arguments=text)


class _ChoiceParts:
    def __init__(self) -> None:
        self._growing: list[_Growing] = []
        self._tool_calls: dict[int, _Growing] = {}
        self.finish_reason: FinishReason | None = None

    def parts(self) -> list[Part]:
        return [growing.part() for growing in self._growing]

    def add(self, chunk: TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | Finished) -> None:
        match chunk:
            case TextDelta() | RefusalDelta():
                if chunk.text:
                    self._last_of(type(chunk)).texts.append(chunk.text)
            case ReasoningDelta():
                self._add_reasoning(chunk)
            case ToolCallDelta():
                self._add_tool_call(chunk)
            case Finished():
                self.finish_reason = chunk.finish_reason
            case _:
                assert_never(chunk)

    def _last_of(self, kind: type[TextDelta | ReasoningDelta | RefusalDelta]) -> _Growing:
        last = self._growing[-1] if self._growing else None
        if last is None or last.delta is not kind or last.is_closed:
            last = _Growing(kind)
            self._growing.append(last)
        return last

    def _add_reasoning(self, chunk: ReasoningDelta) -> None:
        if chunk.redacted is not None:
            redacted = _Growing(ReasoningDelta)
            redacted.redacted = chunk.redacted
            redacted.is_closed = True
            self._growing.append(redacted)
            return
        if not chunk.text and chunk.signature is None:
            return
        thought = self._last_of(ReasoningDelta)
        if chunk.text:
            thought.texts.append(chunk.text)
        if chunk.signature is not None:
            thought.signature = chunk.signature
            thought.is_closed = True

    def _add_tool_call(self, chunk: ToolCallDelta) -> None:
        call = self._tool_calls.get(chunk.index)
        if call is None:
            call = self._tool_calls[chunk.index] = _Growing(ToolCallDelta)
            self._growing.append(call)
        call.id = chunk.id or call.id
        call.name = chunk.name or call.name
        if chunk.arguments:
            call.texts.append(chunk.arguments)
