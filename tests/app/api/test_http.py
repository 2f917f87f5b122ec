from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from app.access.records import AccessRole
from tests.serving import Api, serve_api

GRAPHQL_RESPONSE = "application/graphql-response+json"


async def test_a_query_is_answered_over_post_and_get(api: Api) -> None:
    posted = await api.http.post("/graphql", json={"query": "{ llmProviders { name } }"})
    got = await api.http.get("/graphql", params={"query": "{ llmProviders { name } }"})
    assert posted.json() == got.json() == {"data": {"llmProviders": []}}
    assert posted.headers["content-type"] == "application/json; charset=utf-8"
    assert posted.headers["tollgate-catalog-revision"] == got.headers["tollgate-catalog-revision"]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/graphql-response+json", GRAPHQL_RESPONSE),
        ("application/json;q=0.5, application/graphql-response+json", GRAPHQL_RESPONSE),
        ("application/graphql-response+json;q=0.1, application/json", "application/json"),
        ("text/plain, */*;q=0.1", "application/json"),
        ("application/*", "application/json"),
    ],
)
async def test_the_preferred_media_type_is_answered(api: Api, accept: str, media_type: str) -> None:
    response = await api.http.post("/graphql", json={"query": "{ __typename }"}, headers={"accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"] == f"{media_type}; charset=utf-8"


async def test_an_unacceptable_media_type_is_406(api: Api) -> None:
    response = await api.http.post("/graphql", json={"query": "{ __typename }"}, headers={"accept": "image/png"})
    assert response.status_code == 406


@pytest.mark.parametrize(
    ("headers", "content", "status", "message"),
    [
        ({"content-type": "text/plain"}, b"{}", 415, "Content-Type must be application/json"),
        ({"content-type": "application/json; charset=latin-1"}, b"{}", 415, "in UTF-8"),
        ({"content-type": "multipart/form-data; boundary=x"}, b"--x--", 415, "Content-Type must be application/json"),
        ({"content-type": "application/json"}, b"[]", 400, "batches are not served"),
        ({"content-type": "application/json"}, b"7", 400, "must be a JSON object"),
        ({"content-type": "application/json"}, b"{", 400, "the body is not JSON"),
        ({"content-type": "application/json"}, b'{"query": "\xff"}', 400, "the body is not JSON"),
        ({"content-type": "application/json"}, b'{"query": ""}', 400, "query must be a string"),
    ],
)
async def test_a_malformed_request_is_refused_with_its_reason(
    api: Api, headers: dict[str, str], content: bytes, status: int, message: str
) -> None:
    response = await api.http.post("/graphql", content=content, headers=headers)
    assert response.status_code == status
    assert message in response.json()["errors"][0]["message"]


async def test_a_mutation_over_get_is_405_and_changes_nothing(api: Api) -> None:
    mutation = 'mutation { setSystemSetting(key: "a", value: 1) { __typename } }'
    response = await api.http.get("/graphql", params={"query": mutation})
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert (await api.data("{ systemSettings { key } }")) == {"systemSettings": []}


async def test_another_method_is_405(api: Api) -> None:
    response = await api.http.put("/graphql", json={"query": "{ __typename }"})
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, POST"


async def test_a_browser_gets_the_page_without_a_token(api: Api) -> None:
    async with httpx.AsyncClient(base_url=api.url) as anonymous:
        page = await anonymous.get("/graphql", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>Tollgate GraphQL</title>" in page.text


@pytest.mark.parametrize("path", ["/graphql", "/metrics", "/anything"])
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer", "Basic YTpi", "Bearer \xe9"])
async def test_without_a_valid_token_every_path_is_401(api: Api, path: str, authorization: str | None) -> None:
    headers = {b"authorization": authorization.encode("latin-1")} if authorization else {}
    async with httpx.AsyncClient(base_url=api.url) as anonymous:
        response = await anonymous.get(path, headers=list(headers.items()))
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith('Bearer realm="tollgate"')
    assert response.json()["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}


async def test_health_is_open_and_metrics_are_not(api: Api) -> None:
    async with httpx.AsyncClient(base_url=api.url) as anonymous:
        assert (await anonymous.get("/healthz")).json() == {"status": "ok"}
        ready = (await anonymous.get("/readyz")).json()
    assert ready["status"] == "ready"
    assert ready["catalogRevision"] >= 1
    await api.data("{ llmProviders { id } }")
    await api.data("{ llmProviders { id } }")
    metrics = (await api.http.get("/metrics")).text
    assert "tollgate_graphql_cached_responses_total 1.0" in metrics
    assert 'tollgate_graphql_operations_total{outcome="ok"} 1.0' in metrics
    assert f"tollgate_catalog_revision {float(ready['catalogRevision'])}" in metrics


async def test_a_body_above_the_limit_is_413_whether_it_says_its_length_or_not(
    database_dsn: str, tmp_path: Path
) -> None:
    body = orjson.dumps({"query": "{ __typename }", "variables": {"padding": "x" * 5000}})

    async def in_parts() -> Any:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    async with serve_api(database_dsn, tmp_path, max_body_bytes=4096) as api:
        headers = {"content-type": "application/json"}
        whole = await api.http.post("/graphql", content=body, headers=headers)
        parts = await api.http.post("/graphql", content=in_parts(), headers=headers)
    for response in (whole, parts):
        assert response.status_code == 413
        error = response.json()["errors"][0]
        assert error["message"] == "the request body is above the limit of 4096 bytes"
        assert error["extensions"]["maximum"] == 4096


async def test_a_body_in_parts_is_read_whole(api: Api) -> None:
    async def in_parts() -> Any:
        for part in (b'{"query": "{ __type', b'name }"', b"}"):
            yield part

    response = await api.http.post("/graphql", content=in_parts(), headers={"content-type": "application/json"})
    assert response.json() == {"data": {"__typename": "Query"}}


async def test_a_compressed_body_is_not_taken_for_json(api: Api) -> None:
    body = gzip.compress(b'{"query": "{ __typename }"}')
    response = await api.http.post("/graphql", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400


async def test_a_document_that_is_invalid_is_400_only_for_graphql_response_json(api: Api) -> None:
    for media_type, status in ((GRAPHQL_RESPONSE, 400), ("application/json", 200)):
        response = await api.http.post("/graphql", json={"query": "{ nothing }"}, headers={"accept": media_type})
        assert response.status_code == status
        assert response.json()["errors"][0]["extensions"] == {"code": "GRAPHQL_VALIDATION_FAILED"}
        assert "data" not in response.json()


async def test_an_unforeseen_error_is_masked_with_an_id_and_the_process_goes_on(api: Api) -> None:
    async with api.services.database.transaction() as connection:
        await connection.execute("ALTER TABLE system_settings RENAME TO gone")
    body = await api.post('mutation { deleteSystemSetting(key: "a") { __typename } }')
    (error,) = body["errors"]
    assert error["message"] == f"internal error {error['extensions']['id']}"
    assert error["extensions"]["code"] == "INTERNAL"
    assert "system_settings" not in orjson.dumps(body).decode()
    assert (await api.http.get("/healthz")).status_code == 200


async def test_a_revoked_token_is_refused_at_once(api: Api) -> None:
    token = await api.token(AccessRole.READER)
    assert await api.data("{ llmProviders { id } }", token=token) == {"llmProviders": []}
    listed = await api.data("{ accessTokens { id name } }")
    token_id = next(item["id"] for item in listed["accessTokens"] if item["name"] == "a reader")
    await api.data("mutation($id: ID!) { revokeAccessToken(id: $id) { __typename } }", {"id": token_id})
    response = await api.http.post(
        "/graphql", json={"query": "{ llmProviders { id } }"}, headers={"authorization": f"Bearer {token}"}
    )
    assert response.status_code == 401
