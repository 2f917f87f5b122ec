"""The headers in which a client says something to Tollgate itself."""

from __future__ import annotations

import pytest

from app.errors import ValidationError
from app.gateway.options import GatewayOptions, read_options


def test_what_is_left_out_has_its_default() -> None:
    assert read_options({"content-type": "text/plain"}, default_wait_seconds=7) == GatewayOptions(0, 7, False, ())


def test_every_option_is_read() -> None:
    headers = {
        "x-tollgate-priority": "-3",
        "x-tollgate-wait-seconds": "2.5",
        "x-tollgate-on-disconnect": "detach",
        "x-tollgate-fallbacks": "a:b, c:d ,",
    }
    assert read_options(headers, default_wait_seconds=7) == GatewayOptions(-3, 2.5, True, ("a:b", "c:d"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("priority", "1.5"),
        ("priority", ""),
        ("wait-seconds", "soon"),
        ("wait-seconds", "-0.1"),
        ("wait-seconds", "3600.1"),
        ("wait-seconds", "nan"),
        ("on-disconnect", "Detach"),
        ("timeout", "1"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_its_headers_name(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        read_options({f"x-tollgate-{name}": value}, default_wait_seconds=7)
    assert caught.value.field == f"x-tollgate-{name}"
