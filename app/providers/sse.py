"""Server-sent events out of bytes, however the network cuts them (WHATWG HTML, 9.2.6)."""

from __future__ import annotations

from typing import Final, NamedTuple

from app.errors import InvalidResponse

MAX_EVENT_BYTES: Final = 32 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"


class ServerSentEvent(NamedTuple):
    """`event` is None where the stream did not name the event."""

    event: str | None
    data: str


class EventDecoder:
    """Decodes one stream. An event that its blank line did not end is no event; ids and retry times are not used.

    Holds at most `max_event_bytes` of one event and raises InvalidResponse beyond them.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._partial: list[bytes] = []  # the pieces of a line that has not ended
        self._partial_bytes = 0
        self._event: str | None = None
        self._data: list[str] = []
        self._data_bytes = 0
        self._skips_line_feed = False
        self._is_first_line = True

    def feed(self, piece: bytes) -> list[ServerSentEvent]:
        """The events that this piece completes."""
        if self._skips_line_feed and piece:
            self._skips_line_feed = False
            piece = piece.removeprefix(b"\n")
        if not piece:
            return []
        if b"\n" not in piece and b"\r" not in piece:
            self._keep(piece)
            return []
        if self._partial:
            # The pieces are joined once a line, so that a long line in small pieces costs no more than its length.
            self._partial.append(piece)
            piece = b"".join(self._partial)
            self._partial.clear()
            self._partial_bytes = 0
        lines = piece.splitlines()
        last = piece[-1:]
        # A carriage return ends its line at once; a line feed that follows it in the next piece belongs to it.
        self._skips_line_feed = last == b"\r"
        rest = b"" if last in (b"\n", b"\r") else lines.pop()
        if self._is_first_line:
            self._is_first_line = False
            lines[0] = lines[0].removeprefix(_BOM)
        events: list[ServerSentEvent] = []
        for line in lines:
            if line:
                self._field(line)
                continue
            if self._data:
                events.append(ServerSentEvent(self._event, "\n".join(self._data)))
                self._data = []
                self._data_bytes = 0
            self._event = None
        if rest:
            self._keep(rest)
        return events

    def _keep(self, piece: bytes) -> None:
        self._partial.append(piece)
        self._partial_bytes += len(piece)
        if self._data_bytes + self._partial_bytes > self._max_event_bytes:
            raise self._too_long()

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if self._data_bytes + len(value) > self._max_event_bytes:
            raise self._too_long()
        if name == b"data":
            value = value.removeprefix(b" ")
            self._data_bytes += len(value) + 1
            self._data.append(value.decode("utf-8", "replace"))
        elif name == b"event":
            self._event = value.removeprefix(b" ").decode("utf-8", "replace") or None

    def _too_long(self) -> InvalidResponse:
        return InvalidResponse(f"an event of the stream is longer than {self._max_event_bytes} bytes")
