"""A streamed Response as the gateway writes it: typed events, each with its number, in the order the SDK expects.

Wire format: https://platform.openai.com/docs/api-reference/responses-streaming (checked 2026-11-20).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.errors import TollgateError
from app.prices.records import Usage
from app.providers.messages import Reasoning, ToolCall
from app.providers.openai.responses_answer import (
    Item,
    ResponseFrame,
    call_item,
    message_item,
    reasoning_item,
    refusal_part,
    text_part,
)
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

_encode: Final = msgspec.json.Encoder().encode


class _Open:
    """An output item that grows. `kind` is its type, and of a message that of its last part."""

    __slots__ = ("call", "content", "item_id", "kind", "output_index", "redacted", "signature", "texts")

    def __init__(self, kind: str, output_index: int, item_id: str) -> None:
        self.kind = kind
        self.output_index = output_index
        self.item_id = item_id
        self.texts: list[str] = []
        self.content: list[Item] = []
        self.call: ToolCall | None = None
        self.signature: str | None = None
        self.redacted: str | None = None


class ResponsesStreamWriter:
    """Writes one stream. Items are closed as soon as another begins; calls stay open to the end of all calls."""

    def __init__(self, frame: ResponseFrame, request_id: str) -> None:
        self._frame = frame
        self._request_id = request_id
        self._number = 0
        self._items: list[Item] = []
        self._open: _Open | None = None
        self._calls: dict[int, _Open] = {}
        self._finish_reason: FinishReason | None = None

    def start(self) -> bytes:
        begun = self._frame.begun()
        return self._event("response.created", response=begun) + self._event("response.in_progress", response=begun)

    def write(self, chunk: Chunk) -> bytes:
        match chunk:
            case TextDelta():
                return self._text(chunk.text, "output_text")
            case RefusalDelta():
                return self._text(chunk.text, "refusal")
            case ReasoningDelta():
                return self._reasoning(chunk)
            case ToolCallDelta():
                return self._tool_call(chunk)
            case Finished():
                self._finish_reason = chunk.finish_reason
                return self._close_all()
            case StreamStarted() | StreamUsage():
                return b""

    def end(self, usage: Usage) -> bytes:
        closed = self._close_all()
        response = self._frame.ended(self._items, self._finish_reason, usage)
        return closed + self._event(f"response.{response['status']}", response=response)

    def fail(self, error: TollgateError) -> bytes:
        closed = self._close_all()
        return closed + self._event("response.failed", response=self._frame.failed(self._items, error))

    # --- items ---

    def _text(self, text: str, kind: str) -> bytes:
        if not text:
            return b""
        begun = b""
        item = self._open
        if item is None or item.kind not in ("output_text", "refusal"):
            begun = self._close_all()
            item = self._begin(kind, "msg")
            begun += self._added(item, message_item(item.item_id[4:], "in_progress"))
            begun += self._part("added", item, _content_part(kind, ""))
        elif item.kind != kind:
            begun = self._end_part(item)
            item.kind = kind
            begun += self._part("added", item, _content_part(kind, ""))
        item.texts.append(text)
        logprobs: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
        return begun + self._event(
            f"response.{kind}.delta", **_place(item), content_index=len(item.content), delta=text, **logprobs
        )

    def _reasoning(self, chunk: ReasoningDelta) -> bytes:
        written = b""
        item = self._open
        if item is None or item.kind != "reasoning" or chunk.redacted is not None:
            written = self._close_all()
            item = self._begin("reasoning", "rs")
            written += self._added(item, reasoning_item(item.item_id[3:], Reasoning()))
        if chunk.text:
            if not item.texts:
                part = {"type": "summary_text", "text": ""}
                written += self._event(
                    "response.reasoning_summary_part.added", **_place(item), summary_index=0, part=part
                )
            item.texts.append(chunk.text)
            written += self._event(
                "response.reasoning_summary_text.delta", **_place(item), summary_index=0, delta=chunk.text
            )
        item.signature = chunk.signature or item.signature
        item.redacted = chunk.redacted
        return written if chunk.signature is None and chunk.redacted is None else written + self._close_all()

    def _tool_call(self, chunk: ToolCallDelta) -> bytes:
        written = b""
        item = self._calls.get(chunk.index)
        if item is None:
            written = self._close_open()
            item = self._begin("function_call", "fc")
            self._open = None
            self._calls[chunk.index] = item
            item.call = ToolCall(chunk.id or "", chunk.name or "", "")
            written += self._added(item, call_item(item.item_id[3:], item.call, "in_progress"))
        if chunk.arguments:
            item.texts.append(chunk.arguments)
            written += self._event("response.function_call_arguments.delta", **_place(item), delta=chunk.arguments)
        return written

    def _begin(self, kind: str, prefix: str) -> _Open:
        index = len(self._items)
        self._items.append({})
        self._open = _Open(kind, index, f"{prefix}_{self._request_id}_{index}")
        return self._open

    def _close_all(self) -> bytes:
        written = self._close_open()
        for item in self._calls.values():
            assert item.call is not None
            arguments = "".join(item.texts)
            call = ToolCall(item.call.id, item.call.name, arguments)
            written += self._event("response.function_call_arguments.done", **_place(item), arguments=arguments)
            written += self._done(item, call_item(item.item_id[3:], call, "completed"))
        self._calls.clear()
        return written

    def _close_open(self) -> bytes:
        item, self._open = self._open, None
        if item is None:
            return b""
        if item.kind == "reasoning":
            return self._end_reasoning(item)
        written = self._end_part(item)
        return written + self._done(item, {**message_item(item.item_id[4:], "completed"), "content": item.content})

    def _end_part(self, item: _Open) -> bytes:
        text = "".join(item.texts)
        place = {**_place(item), "content_index": len(item.content)}
        if item.kind == "refusal":
            written = self._event("response.refusal.done", **place, refusal=text)
        else:
            written = self._event("response.output_text.done", **place, text=text, logprobs=[])
        part = _content_part(item.kind, text)
        written += self._part("done", item, part)
        item.content.append(part)
        item.texts.clear()
        return written

    def _end_reasoning(self, item: _Open) -> bytes:
        text = "".join(item.texts)
        written = b""
        if text:
            place = {**_place(item), "summary_index": 0}
            part = {"type": "summary_text", "text": text}
            written += self._event("response.reasoning_summary_text.done", **place, text=text)
            written += self._event("response.reasoning_summary_part.done", **place, part=part)
        thought = Reasoning(text, item.signature, item.redacted)
        return written + self._done(item, reasoning_item(item.item_id[3:], thought))

    # --- events ---

    def _added(self, item: _Open, body: Item) -> bytes:
        self._items[item.output_index] = body
        return self._event("response.output_item.added", output_index=item.output_index, item=body)

    def _done(self, item: _Open, body: Item) -> bytes:
        self._items[item.output_index] = body
        return self._event("response.output_item.done", output_index=item.output_index, item=body)

    def _part(self, what: str, item: _Open, part: Item) -> bytes:
        return self._event(f"response.content_part.{what}", **_place(item), content_index=len(item.content), part=part)

    def _event(self, name: str, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        body = _encode({"type": name, "sequence_number": number, **fields})
        return b"event: " + name.encode() + b"\ndata: " + body + b"\n\n"


def _place(item: _Open) -> dict[str, Any]:
    return {"item_id": item.item_id, "output_index": item.output_index}


def _content_part(kind: str, text: str) -> Item:
    return refusal_part(text) if kind == "refusal" else text_part(text)
