"""graphql-transport-ws, with the `websockets` client."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.access.records import AccessRole
from tests.app.api.test_catalog import provider
from tests.serving import ADMIN_TOKEN, Api

PROTOCOL: Any = ["graphql-transport-ws"]


async def send(socket: ClientConnection, **message: Any) -> None:
    await socket.send(json.dumps(message))


async def receive(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await socket.recv())
    return message


async def initialise(socket: ClientConnection, token: str = ADMIN_TOKEN) -> None:
    await send(socket, type="connection_init", payload={"Authorization": f"Bearer {token}"})
    assert await receive(socket) == {"type": "connection_ack"}


async def closed_with(socket: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed) as closed:
        await socket.recv()
    return closed.value.rcvd.code if closed.value.rcvd is not None else None


async def test_changes_of_the_catalog_are_pushed(api: Api) -> None:
    async with connect(api.websocket_url, subprotocols=PROTOCOL) as socket:
        await initialise(socket)
        await send(socket, id="1", type="subscribe", payload={"query": "subscription { catalogChanged { revision } }"})
        first = await receive(socket)
        assert first["type"] == "next"
        await provider(api)
        second = await receive(socket)
        assert (
            second["payload"]["data"]["catalogChanged"]["revision"]
            > first["payload"]["data"]["catalogChanged"]["revision"]
        )
        await send(socket, id="1", type="complete")
        await send(socket, type="ping")
        assert await receive(socket) == {"type": "pong"}


async def test_queries_and_mutations_run_over_the_websocket_too(api: Api) -> None:
    header = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    async with connect(api.websocket_url, subprotocols=PROTOCOL, additional_headers=header) as socket:
        await send(socket, type="connection_init")
        assert await receive(socket) == {"type": "connection_ack"}
        await send(
            socket,
            id="a",
            type="subscribe",
            payload={
                "query": """mutation($v: JSON!) { setSystemSetting(key: "k", value: $v) {
                  ... on SystemSetting { value } } }""",
                "variables": {"v": [1, None]},
            },
        )
        assert await receive(socket) == {
            "id": "a",
            "type": "next",
            "payload": {"data": {"setSystemSetting": {"value": [1, None]}}},
        }
        assert await receive(socket) == {"id": "a", "type": "complete"}
        await send(socket, id="b", type="subscribe", payload={"query": "{ nothing }"})
        refused = await receive(socket)
        assert (refused["id"], refused["type"]) == ("b", "error")
        assert refused["payload"][0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"


async def test_a_wrong_token_in_the_header_refuses_the_upgrade(api: Api) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(
            api.websocket_url, subprotocols=PROTOCOL, additional_headers={"Authorization": "Bearer wrong"}
        ):
            pass
    assert refused.value.response.status_code in (401, 403)


@pytest.mark.parametrize("payload", [None, {}, {"Authorization": "Bearer wrong"}, {"Authorization": 7}])
async def test_without_a_valid_token_the_connection_is_closed_with_4403(api: Api, payload: Any) -> None:
    async with connect(api.websocket_url, subprotocols=PROTOCOL) as socket:
        await send(socket, type="connection_init", **({"payload": payload} if payload is not None else {}))
        assert await closed_with(socket) == 4403


async def test_an_operation_before_the_connection_is_acknowledged_closes_it(api: Api) -> None:
    async with connect(api.websocket_url, subprotocols=PROTOCOL) as socket:
        await send(socket, id="1", type="subscribe", payload={"query": "{ __typename }"})
        assert await closed_with(socket) == 4401


async def test_a_revoked_token_closes_its_connections(api: Api) -> None:
    token = await api.token(AccessRole.READER)
    async with connect(api.websocket_url, subprotocols=PROTOCOL) as socket:
        await initialise(socket, token)
        (row,) = [row for row in await api.services.access.list() if row.name == "a reader"]
        await api.services.access.revoke(row.id)
        assert await closed_with(socket) == 4403


@pytest.mark.parametrize(
    "message",
    [
        "nonsense",
        "[]",
        "7",
        '{"type": 7}',
        '{"type": "unknown"}',
        '{"type": "subscribe"}',
        '{"type": "subscribe", "id": "1", "payload": "x"}',
        '{"type": "subscribe", "id": "1", "payload": {"query": 7}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{", "variables": []}}',
    ],
)
async def test_a_message_of_another_protocol_closes_with_4400(api: Api, message: str) -> None:
    async with connect(api.websocket_url, subprotocols=PROTOCOL) as socket:
        await initialise(socket)
        await socket.send(message)
        assert await closed_with(socket) == 4400


async def test_a_subscription_over_http_says_where_to_go(api: Api) -> None:
    body = await api.post("subscription { catalogChanged { revision } }")
    assert "websocket" in body["errors"][0]["message"]


async def test_a_client_that_goes_away_leaves_no_subscription_behind(api: Api) -> None:
    callbacks = api.services.snapshots._callbacks
    before = len(callbacks)
    async with connect(api.websocket_url, subprotocols=PROTOCOL) as socket:
        await initialise(socket)
        await send(socket, id="1", type="subscribe", payload={"query": "subscription { catalogChanged { revision } }"})
        await receive(socket)
        assert len(callbacks) == before + 1
    async with asyncio.timeout(10):
        while len(callbacks) > before:  # each answer is a turn of the server's loop
            await api.data("{ __typename }")
