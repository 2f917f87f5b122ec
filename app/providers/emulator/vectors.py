"""Embedding vectors and relevance: the same text always gives the same numbers, and like texts are near each other."""

from __future__ import annotations

import hashlib
import math
import re
from array import array
from functools import lru_cache
from random import Random

_WORD = re.compile(r"\w+")


@lru_cache(maxsize=512)
def vector(text: str, dimensions: int) -> array[float]:
    """Of length 1, in single precision."""
    seed = hashlib.blake2b(text.encode(), digest_size=8).digest()
    chance = Random(seed)  # noqa: S311  repeatable on purpose, nothing secret depends on it
    numbers = [chance.random() - 0.5 for _ in range(dimensions)]
    length = math.sqrt(sum(number * number for number in numbers))
    return array("f", [number / length for number in numbers])


def relevance(query: str, document: str) -> float:
    """The share of the query's words that the document has, with a little for its own text so that few are equal."""
    wanted = set(_WORD.findall(query.lower()))
    shared = len(wanted & set(_WORD.findall(document.lower()))) / max(1, len(wanted))
    own = int.from_bytes(hashlib.blake2b(document.encode(), digest_size=2).digest(), "big") / 65_536
    return round(0.05 + 0.9 * shared + 0.05 * own, 8)
