"""The lines of an exported start log, and the audit that reads them."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigurationError
from app.limits.audit import Audit
from app.limits.log import Format, LimitsLine, LogLine, StartLine, line_writer, read_lines

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LIMITS = LimitsLine("acme", BEGIN, 8, 2, None)

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)
instants = st.datetimes(timezones=st.just(UTC))
counts = st.integers(0, 2**31)
lines = st.builds(LimitsLine, names, instants, counts, counts, st.none() | counts) | st.builds(
    StartLine, names, counts, names, names, instants, st.none() | instants, counts, st.none() | counts
)


def start(sequence: int, seconds: float, provider: str = "acme") -> StartLine:
    at = BEGIN + timedelta(seconds=seconds)
    return StartLine(provider, sequence, f"r{sequence}", "lease", at, at + timedelta(seconds=1), 100, 5)


def written(log: list[LogLine], format: Format = Format.NDJSON) -> str:
    output = io.StringIO(newline="")
    write = line_writer(output, format)
    for line in log:
        write(line)
    return output.getvalue()


def read(text: str) -> list[LogLine]:
    return list(read_lines(io.StringIO(text, newline=""), "log"))


def audit(log: list[LogLine]) -> Audit:
    made = Audit(window=MINUTE)
    for line in log:
        made.take(line)
    return made


@given(st.lists(lines), st.sampled_from(Format))
def test_what_is_written_is_read_again(log: list[LogLine], format: Format) -> None:
    assert read(written(log, format)) == log


def test_a_line_says_what_it_is() -> None:
    assert written([LIMITS, start(1, 0)]).splitlines() == [
        '{"kind":"limits","provider":"acme","since":"2026-03-01T00:00:00Z","maxParallelRequests":8,'
        '"requestsPerMinute":2,"tokensPerMinute":null}',
        '{"kind":"start","provider":"acme","sequence":1,"requestId":"r1","leaseId":"lease",'
        '"startedAt":"2026-03-01T00:00:00Z","endedAt":"2026-03-01T00:00:01Z","reservedTokens":100,"settledTokens":5}',
    ]
    assert written([LIMITS, start(1, 0)], Format.CSV).splitlines() == [
        "kind,provider,since,maxParallelRequests,requestsPerMinute,tokensPerMinute,"
        "sequence,requestId,leaseId,startedAt,endedAt,reservedTokens,settledTokens",
        "limits,acme,2026-03-01T00:00:00Z,8,2,,,,,,,,",
        "start,acme,,,,,1,r1,lease,2026-03-01T00:00:00Z,2026-03-01T00:00:01Z,100,5",
    ]


NDJSON = written([LIMITS, start(1, 0)])
CSV = written([LIMITS, start(1, 0)], Format.CSV)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NDJSON[:-20], "log:2: this is no line of a start log: "),
        (NDJSON.replace('"sequence":1', '"sequence":"one"'), r"log:2: .*sequence"),
        (NDJSON.replace('"startedAt"', '"startAt"'), r"log:2: .*startedAt"),
        (NDJSON.replace('"endedAt":"2026-03-01T00:00:01Z",', ""), r"log:2: .*endedAt"),
        (NDJSON.replace('"kind":"limits"', '"kind":"limit"'), r"log:1: .*limit"),
        (NDJSON.replace(":00Z", ":00"), r"log:1: .*since"),
        ("providers:\n  - name: acme\n", "log:1: "),
        (CSV[:-25], r"log:3: .*number of columns"),
        (CSV.replace(",100,", ",many,"), r"log:3: .*reservedTokens"),
        (CSV.replace(",2026-03-01T00:00:00Z,2026", ",,2026"), r"log:3: .*startedAt"),
        (CSV.replace("leaseId", "lease"), r"log:3: .*leaseId"),
    ],
)
def test_a_broken_line_is_named(text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        read(text)


def test_each_provider_is_judged_by_its_own_limits() -> None:
    other = LimitsLine("other", BEGIN, 1, 3, None)
    starts = [start(number, number) for number in (1, 2, 3)]
    made = audit([LIMITS, *starts, other, *(start(number, 10 * number, "other") for number in (1, 2, 3))])
    assert {name: one.violation_count for name, one in made.providers.items()} == {"acme": 1, "other": 0}
    assert [found.sequence for found in made.providers["acme"].violations] == [3]


def test_violations_beyond_the_first_ones_are_counted() -> None:
    found = audit([LIMITS, *(start(number, number / 100) for number in range(1, 101))]).providers["acme"]
    assert (found.violation_count, len(found.violations)) == (98 + 92, 20)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ([start(1, 0)], "starts come before any limits"),
        ([LIMITS, start(1, 0), LIMITS], "limits come after starts"),
        ([LIMITS, LimitsLine("acme", BEGIN - MINUTE, 8, 2, None)], "limits lie before those that precede them"),
        ([LIMITS, start(2, 0), start(1, 1)], "start 1 comes after start 2"),
        ([LIMITS, start(1, 0), start(1, 0)], "start 1 comes after start 1"),
        ([LIMITS, start(1, 1), start(2, 0)], "start 2 lies before start 1"),
    ],
)
def test_a_log_that_is_not_whole_and_in_order_is_not_judged(log: list[LogLine], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=f"the start log of 'acme' is not whole and in order: {expected}"):
        audit(log)
