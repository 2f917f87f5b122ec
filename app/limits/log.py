"""The start log as lines: what `tollgate limits export` writes, and `check --file` reads.

For each provider first its limits, in the order in which they were set, then its starts in theirs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from itertools import chain
from typing import Annotated, Final, Protocol, TextIO

import msgspec

from app.errors import ConfigurationError

_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class LimitsLine(msgspec.Struct, frozen=True, tag_field="kind", tag="limits", rename="camel"):
    """The limits of a provider from `since` on. Null: tokens are not limited."""

    provider: str
    since: _Instant
    max_parallel_requests: int
    requests_per_minute: int
    tokens_per_minute: int | None


class StartLine(msgspec.Struct, frozen=True, tag_field="kind", tag="start", rename="camel"):
    """One start of a call. `settled_tokens` and `ended_at` are null until it has ended."""

    provider: str
    sequence: int
    request_id: str
    lease_id: str
    started_at: _Instant
    ended_at: _Instant | None
    reserved_tokens: int
    settled_tokens: int | None


LogLine = LimitsLine | StartLine


class Format(StrEnum):
    NDJSON = "ndjson"
    CSV = "csv"


_COLUMNS: Final = ("kind", *dict.fromkeys((*LimitsLine.__struct_encode_fields__, *StartLine.__struct_encode_fields__)))

_NULLABLE: Final = {"tokensPerMinute", "endedAt", "settledTokens"}


class Writes(Protocol):
    def __call__(self, line: LogLine) -> object: ...


def line_writer(output: TextIO, format: Format) -> Writes:
    """Writes one line after the other; in CSV under one header, with the columns of the other kind left empty."""
    if format is Format.NDJSON:
        encode = msgspec.json.Encoder().encode
        return lambda line: output.write(encode(line).decode() + "\n")
    table = csv.DictWriter(output, _COLUMNS, lineterminator="\n")
    table.writeheader()
    return lambda line: table.writerow(msgspec.to_builtins(line))


def read_lines(source: TextIO, name: str) -> Iterator[LogLine]:
    """The lines of a file of either format. Raises ConfigurationError that names file, line and field."""
    lines = _Numbered(source)
    try:
        first = next(lines, "")
        rest = chain([first], lines)
        yield from _csv_lines(rest) if first.startswith("kind,") else _ndjson_lines(rest)
    except (msgspec.MsgspecError, csv.Error, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{name}:{lines.number}: this is no line of a start log: {error}") from None


class _Numbered:
    """Counts the lines that it has handed out."""

    def __init__(self, source: TextIO) -> None:
        self.number = 0
        self._source = source

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._source)
        self.number += 1
        return line


def _ndjson_lines(lines: Iterable[str]) -> Iterator[LogLine]:
    decode = msgspec.json.Decoder[LogLine](LogLine).decode
    return (decode(line) for line in lines if line.strip())


def _csv_lines(lines: Iterable[str]) -> Iterator[LogLine]:
    for row in csv.DictReader(lines):
        if None in row or None in row.values():
            raise csv.Error("its number of columns is not that of the first line")
        values = {column: None if value == "" and column in _NULLABLE else value for column, value in row.items()}
        # Everything is text in CSV. What is left empty belongs to lines of the other kind, and is not looked at.
        line: LogLine = msgspec.convert(values, LogLine, strict=False)
        yield line
