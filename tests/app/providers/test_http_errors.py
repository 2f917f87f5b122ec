"""What becomes of an HTTP status, and how long a provider asks to wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import (
    AuthenticationFailed,
    CallTimeout,
    InvalidRequest,
    InvalidResponse,
    ModelNotFound,
    PayloadTooLarge,
    PermissionDenied,
    ProviderConflict,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
)
from app.providers.http_errors import error_for_status, retry_after_seconds
from app.requests.lifecycle import is_retryable

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (307, InvalidResponse, True),
        (400, InvalidRequest, False),
        (401, AuthenticationFailed, False),
        (402, InvalidRequest, False),
        (403, PermissionDenied, False),
        (404, ModelNotFound, False),
        (408, CallTimeout, True),
        (409, ProviderConflict, True),
        (413, PayloadTooLarge, False),
        (422, InvalidRequest, False),
        (429, RateLimited, True),
        (500, ProviderUnavailable, True),
        (502, ProviderUnavailable, True),
        (503, ProviderUnavailable, True),
        (504, ProviderUnavailable, True),
        (529, ProviderUnavailable, True),
    ],
)
def test_a_status_has_its_error(status: int, kind: type[ProviderError], retryable: bool) -> None:
    error = error_for_status(status, "went wrong", headers={"retry-after": "2"}, provider_request_id="req-1")
    assert type(error) is kind
    assert is_retryable(error) is retryable
    assert error.message == f"the provider answered {status}: went wrong"
    assert (error.http_status, error.retry_after_seconds, error.provider_request_id) == (status, 2, "req-1")


def test_a_message_is_bounded_and_never_empty() -> None:
    assert len(error_for_status(500, "x" * 10_000, headers={}).message) < 600
    assert error_for_status(500, "  \n", headers={}).message == "the provider answered 500: no message"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "NaN"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "in a while"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, 90),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=90), usegmt=True)}, 0),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30"}, 30),
        ({"retry-after": "Sun, 01 Mar 2026 14:00:30 +0200"}, 30),
        ({"retry-after": "Sun, 01 Mar 99999999999999999999 12:00:30 GMT"}, None),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 +99999999999999999999"}, None),
    ],
)
def test_retry_after_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers, now=NOW) == seconds


dates = st.from_regex(
    r"(Sun, )?[0-9]{1,30} (Mar|Foo) [0-9]{1,30} [0-9]{1,30}(:[0-9]{1,30}){1,2} ([+-][0-9]{1,30}|GMT|XYZ)",
    fullmatch=True,
)


@given(st.one_of(st.text(max_size=50), dates), st.one_of(st.none(), st.text(max_size=20)))
def test_no_header_makes_reading_it_fail(text: str, milliseconds: str | None) -> None:
    headers = {"retry-after": text} | ({} if milliseconds is None else {"retry-after-ms": milliseconds})
    seconds = retry_after_seconds(headers, now=NOW)
    assert seconds is None or seconds >= 0
