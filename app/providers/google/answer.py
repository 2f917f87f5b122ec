"""From what Google's servers generate to ours: whole answers and streams.

https://ai.google.dev/api/generate-content (2026-11-20)

finishReason                                            | finish reason
--------------------------------------------------------|------------------------------------------------------
STOP                                                    | stop, or tool_calls where functions were called
MAX_TOKENS                                              | length
SAFETY, RECITATION, LANGUAGE, BLOCKLIST, PROHIBITED_CONTENT, SPII, IMAGE_...; a blocked prompt | content_filter
MALFORMED_FUNCTION_CALL, UNEXPECTED_TOOL_CALL, TOO_MANY_TOOL_CALLS, MISSING_THOUGHT_SIGNATURE  | InvalidResponse
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from app.errors import ConnectionFailed, InvalidResponse
from app.providers.adapter import ModelResponse, WireResponse
from app.providers.collect import Collector
from app.providers.google import wire
from app.providers.google.errors import error_of_detail
from app.providers.operations import (
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
from app.providers.wire import decode_answer, object_text

_FILTERED: Final = frozenset({"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"})
_FAILED: Final = frozenset(
    {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE"}
)


def parse_content(response: WireResponse, request_id: str) -> ModelResponse:
    content = decode_answer(wire.content_decoder, response.body, status=response.status)
    collector = Collector()
    reading = ContentStream(request_id)
    for chunk in reading.chunks(content):
        collector.add(chunk)
    if not reading.is_whole:
        raise InvalidResponse(
            "the provider's answer cannot be used: no candidate has finished", http_status=response.status
        )
    return collector.response()


class ContentStream:
    """Reads one answer, in pieces or as a whole: both have one form.

    Function calls without an id of Google's get one that is unique to the answer.
    """

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._has_started = False
        self._calls: dict[int, int] = {}  # how many each candidate has made
        self._is_finished: dict[int, bool] = {}

    @property
    def is_whole(self) -> bool:
        return bool(self._is_finished) and all(self._is_finished.values())

    def read(self, event: str | None, data: str) -> Sequence[Chunk]:
        if not data:
            return ()
        content = decode_answer(wire.chunk_decoder, data)
        if content.error is not None:
            raise error_of_detail(content.error)
        return list(self.chunks(content))

    def end(self) -> None:
        if not self.is_whole:
            raise ConnectionFailed("the stream ended before the answer was whole")

    def chunks(self, content: wire.GeneratedContent) -> Iterator[Chunk]:
        if not self._has_started:
            self._has_started = True
            yield StreamStarted(response_model=content.model_version, response_id=content.response_id)
        for candidate in content.candidates:
            yield from self._candidate_chunks(candidate, content.response_id or self._request_id)
        feedback = content.prompt_feedback
        if feedback is not None and feedback.block_reason is not None and not content.candidates:
            if feedback.block_reason_message:
                yield RefusalDelta(feedback.block_reason_message)
            self._is_finished[0] = True
            yield Finished(FinishReason.CONTENT_FILTER)
        if content.usage_metadata is not None:
            usage = content.usage_metadata.usage(is_final=self.is_whole)
            if usage is not None:
                yield StreamUsage(usage)

    def _candidate_chunks(self, candidate: wire.Candidate, answer_id: str) -> Iterator[Chunk]:
        index = candidate.index
        self._is_finished.setdefault(index, False)
        for part in candidate.content.parts if candidate.content else ():
            yield from self._part_chunks(index, part, answer_id)
        if candidate.finish_reason is not None:
            self._is_finished[index] = True
            yield self._finished(index, candidate)

    def _part_chunks(self, choice: int, part: wire.Part, answer_id: str) -> Iterator[Chunk]:
        if part.inline_data is not None:
            raise InvalidResponse("the provider's answer cannot be used: it holds media, which a chat cannot")
        if part.thought:
            if part.text or part.thought_signature:
                yield ReasoningDelta(part.text or "", signature=part.thought_signature, choice=choice)
            return
        if part.thought_signature is not None:
            # The proof of the thoughts before this part, shown or not.
            yield ReasoningDelta(signature=part.thought_signature, choice=choice)
        if part.text:
            yield TextDelta(part.text, choice=choice)
        if part.function_call is not None:
            number = self._calls.get(choice, 0)
            self._calls[choice] = number + 1
            yield ToolCallDelta(
                index=number,
                id=part.function_call.id or f"call_{answer_id}_{choice}_{number}",
                name=part.function_call.name,
                arguments=object_text(part.function_call.args or {}),
                choice=choice,
            )

    def _finished(self, choice: int, candidate: wire.Candidate) -> Finished:
        reason = candidate.finish_reason or ""
        if reason in _FAILED:
            raise InvalidResponse(f"the model ended with {reason}: {candidate.finish_message or 'no message'}"[:500])
        if reason in _FILTERED or reason.startswith("IMAGE_"):
            return Finished(FinishReason.CONTENT_FILTER, choice)
        if reason == "MAX_TOKENS":
            return Finished(FinishReason.LENGTH, choice)
        return Finished(FinishReason.TOOL_CALLS if self._calls.get(choice) else FinishReason.STOP, choice)
