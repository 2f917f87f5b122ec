"""Nobody is answered from before what their process holds, whatever the response cache holds."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from app.api.asgi import answer
from app.api.response_cache import ResponseCache
from tests.serving import Api


async def test_reads_that_begin_after_a_mutation_see_it_while_others_read_on(api: Api) -> None:
    acknowledged = 0
    query = {"query": '{ systemSetting(key: "count") { value } }'}
    mutation = 'mutation($n: JSON!) { setSystemSetting(key: "count", value: $n) { __typename } }'
    await api.data(mutation, {"n": 0})

    async def write() -> None:
        nonlocal acknowledged
        for number in range(1, 31):
            await api.data(mutation, {"n": number})
            acknowledged = number

    async def read() -> int:
        reads = 0
        revision = 0
        while acknowledged < 30:
            at_least, held = acknowledged, api.services.snapshots.current.revision
            response = await api.http.post("/graphql", json=query)
            assert response.json()["data"]["systemSetting"]["value"] >= at_least
            answered = int(response.headers["tollgate-catalog-revision"])
            assert answered >= max(held, revision)
            revision = answered
            reads += 1
        return reads

    _, *reads = await asyncio.gather(write(), read(), read(), read())
    assert all(count > 0 for count in reads)
    assert "tollgate_graphql_cached_responses_total" in (await api.http.get("/metrics")).text


@given(st.lists(st.tuples(st.sampled_from(["put", "get"]), st.sampled_from("abc"), st.integers(1, 4)), max_size=40))
def test_the_cache_answers_only_what_was_put_at_the_very_revision_asked_for(
    steps: list[tuple[str, str, int]],
) -> None:
    cache = ResponseCache()
    for step, key, revision in steps:
        if step == "put":
            cache.put((key,), revision, answer(200, f"{key}{revision}".encode(), "text/plain"))
        elif (found := cache.get((key,), revision)) is not None:
            assert found.body["body"] == f"{key}{revision}".encode()
