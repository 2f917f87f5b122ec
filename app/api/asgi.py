"""The few ASGI pieces that the raw handlers share: headers, bodies, whole responses, bearer tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.types import Message, Receive, Scope, Send

from app.access.authenticator import Authenticator
from app.access.records import Identity
from app.errors import Unauthenticated

_BEARER = b"bearer "


class BodyTooLarge(Exception):
    pass


class ClientGone(Exception):
    """The client hung up before its request was whole."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response as the two ASGI messages that send it; may be sent any number of times."""

    start: Message
    body: Message

    async def send(self, send: Send) -> None:
        await send(self.start)
        await send(self.body)

    @property
    def size_bytes(self) -> int:
        return len(self.body["body"]) + 600


def answer(status: int, body: bytes, content_type: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> Answer:
    return Answer(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", content_type.encode("latin-1")),
                (b"content-length", str(len(body)).encode("latin-1")),
                *headers,
            ],
        },
        {"type": "http.response.body", "body": body},
    )


def refusal(
    status: int,
    message: str,
    code: str,
    *,
    media_type: str = "application/json",
    headers: Iterable[tuple[bytes, bytes]] = (),
    extensions: Mapping[str, Any] | None = None,
) -> Answer:
    """An error in the shape of a GraphQL response without data."""
    body = {"errors": [{"message": message, "extensions": {"code": code, **(extensions or {})}}]}
    return answer(status, orjson.dumps(body), f"{media_type}; charset=utf-8", headers)


def unauthenticated(message: str, *, has_token: bool) -> Answer:
    challenge = b'Bearer realm="tollgate", error="invalid_token"' if has_token else b'Bearer realm="tollgate"'
    return refusal(401, message, Unauthenticated.code, headers=[(b"www-authenticate", challenge)])


def header(scope: Scope, name: bytes) -> bytes:
    """The header's value; several of one name are joined as a list, and a missing one is empty."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0] if len(found) == 1 else b", ".join(found)


def bearer_token(authorization: bytes) -> str:
    """Raises Unauthenticated where the header carries no bearer token."""
    if authorization[:7].lower() != _BEARER:
        raise Unauthenticated("a token is needed: send the header 'Authorization: Bearer <token>'")
    return authorization[7:].strip().decode("latin-1")


async def authenticate(authenticator: Authenticator, authorization: bytes) -> Identity:
    """Raises Unauthenticated."""
    token = bearer_token(authorization)
    return authenticator.authenticate_from_memory(token) or await authenticator.authenticate(token)


async def read_body(receive: Receive, declared_length: bytes, max_bytes: int) -> bytes:
    """Raises BodyTooLarge, as soon as that is known, or ClientGone."""
    if declared_length.isdigit() and int(declared_length) > max_bytes:
        raise BodyTooLarge
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise ClientGone
    if not message.get("more_body", False):
        if len(body) > max_bytes:
            raise BodyTooLarge
        return body
    chunks = [body]
    size = len(body)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise BodyTooLarge
        chunks.append(chunk)
    return b"".join(chunks)
