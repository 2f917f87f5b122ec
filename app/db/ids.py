"""Row ids in the shape of Prisma's cuid(): 25 characters, "c" first, then the time, then randomness."""

from __future__ import annotations

import os
import time
from typing import Final

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS: Final = tuple(first + second for first in _DIGITS for second in _DIGITS)
_DIGIT_OF_BYTE: Final = bytes(ord(_DIGITS[byte % 36]) for byte in range(256))
"""Four digits stand for eight bytes and the others for seven: 16 digits hold 82.6 random bits of the possible 82.7."""
_RANDOM_DIGITS: Final = 16


def new_id() -> str:
    """A fresh id. Ids of later milliseconds sort after those of earlier ones."""
    random = os.urandom(_RANDOM_DIGITS).translate(_DIGIT_OF_BYTE).decode()
    return ids_from(time.time_ns() // 1_000_000) + random


def ids_from(milliseconds: int) -> str:
    """What sorts before every id of that time since 1970 or later, and after every earlier one."""
    rest, fourth = divmod(milliseconds, 1296)
    rest, third = divmod(rest, 1296)
    first, second = divmod(rest, 1296)
    return f"c{_PAIRS[first]}{_PAIRS[second]}{_PAIRS[third]}{_PAIRS[fourth]}"
