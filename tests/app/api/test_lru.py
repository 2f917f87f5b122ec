from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.api.lru import LruCache


def test_the_least_recently_used_entry_goes_first() -> None:
    cache: LruCache[str, int] = LruCache(80)
    for number, key in enumerate("abcdefgh"):
        cache.put(key, number, 10)
    assert cache.get("a") == 0
    cache.put("i", 8, 10)
    assert cache.get("b") is None
    assert cache.get("a") == 0


def test_an_entry_that_would_push_out_much_of_the_rest_is_not_kept() -> None:
    cache: LruCache[str, int] = LruCache(80)
    cache.put("a", 1, 11)
    assert cache.get("a") is None
    assert cache.size_bytes == 0


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=200))
def test_the_bytes_it_holds_are_counted_and_never_above_the_bound(puts: list[tuple[int, int]]) -> None:
    cache: LruCache[int, int] = LruCache(100)
    for key, size in puts:
        cache.put(key, size, size)
        assert cache.size_bytes <= 100
        assert cache.size_bytes == sum(size for _, size in cache._entries.values())
    cache.clear()
    assert (len(cache), cache.size_bytes) == (0, 0)
