"""Row ids in the shape of Prisma's cuid(): 25 characters, "c" first, then the time, then randomness."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_RANDOM_DIGITS = 16
_RANDOM_BOUND = 36**_RANDOM_DIGITS


def new_id() -> str:
    """A fresh id. Ids of later milliseconds sort after those of earlier ones."""
    return "c" + _base36(time.time_ns() // 1_000_000, 8) + _base36(secrets.randbelow(_RANDOM_BOUND), _RANDOM_DIGITS)


def _base36(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 36)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
