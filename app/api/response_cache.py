"""Whole responses of queries that read only the catalog, for as long as the catalog stays at their revision."""

from __future__ import annotations

from typing import Final

from app.api.asgi import Answer
from app.api.lru import LruCache

Key = tuple[object, ...]

_MAX_BYTES: Final = 24 * 1024 * 1024


class ResponseCache:
    """Never answers what was made at another revision than the one asked for."""

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._revision = -1
        self._answers: LruCache[Key, Answer] = LruCache(max_bytes)

    def get(self, key: Key, revision: int) -> Answer | None:
        if revision != self._revision:
            return None
        return self._answers.get(key)

    def put(self, key: Key, revision: int, answer: Answer) -> None:
        """Drops the answers of an older revision; one that is itself older is not kept."""
        if revision < self._revision:
            return
        if revision > self._revision:
            self._answers.clear()
            self._revision = revision
        key_bytes = sum(len(part) for part in key if isinstance(part, (bytes, str)))
        self._answers.put(key, answer, answer.size_bytes + key_bytes)
