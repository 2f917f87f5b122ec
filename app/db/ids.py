"""Row ids in the shape of Prisma's cuid(): 25 characters, "c" first, then the time, then randomness."""

from __future__ import annotations

import os
import time
from typing import Final

_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS: Final = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_RANDOM_BYTES: Final = 16
"""More bits than the sixteen digits hold, so that each of them is as likely as the other."""


def new_id() -> str:
    """A fresh id. Ids of later milliseconds sort after those of earlier ones."""
    random = int.from_bytes(os.urandom(_RANDOM_BYTES), "little")
    return "c" + _base36(time.time_ns() // 1_000_000, 4) + _base36(random, 8)


def _base36(number: int, pairs: int) -> str:
    """The last digits of the number, two for each of `pairs`."""
    digits = []
    for _ in range(pairs):
        number, pair = divmod(number, 1296)
        digits.append(_PAIRS[pair])
    digits.reverse()
    return "".join(digits)
