"""POST /v1/messages/count_tokens: an estimate of our own, since it must cost no call of a provider."""

from __future__ import annotations

from typing import Final

import msgspec
import orjson
from starlette.types import Receive, Scope, Send

from app.access.authenticator import Authenticator
from app.access.records import Permission
from app.api.asgi import BodyTooLarge, ClientGone, answer, authenticate, header, read_body
from app.catalog.snapshots import SnapshotHolder
from app.errors import PayloadTooLarge, TollgateError
from app.execution.estimate import estimate_usage
from app.gateway.http import authorization_of, send_error
from app.gateway.models import find_model
from app.providers.bodies import read_object
from app.providers.dialect import Dialect
from app.providers.operations import ChatOutput
from app.requests.preparation import Preparation

ESTIMATED: Final = (b"x-tollgate-estimated", b"true")


class CountTokensEndpoint:
    def __init__(
        self,
        dialect: Dialect,
        *,
        authenticator: Authenticator,
        snapshots: SnapshotHolder,
        preparation: Preparation,
        max_body_bytes: int,
    ) -> None:
        self._dialect = dialect
        self._authenticator = authenticator
        self._snapshots = snapshots
        self._preparation = preparation
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            identity = await authenticate(self._authenticator, authorization_of(scope))
            identity.require(Permission.SUBMIT_REQUESTS)
            body = await read_body(receive, header(scope, b"content-length"), self._max_body_bytes)
            # The same body as a message's, but that it names no maximum.
            call = self._dialect.decode(msgspec.json.encode({"max_tokens": 1, **read_object(body)}), {})
            snapshot = self._snapshots.current
            name = find_model(snapshot, call.model, identity.workspace_id)
            self._preparation.usable_model(snapshot, name, identity.workspace_id)
            usage = estimate_usage(call.request, ChatOutput(choices=[]))
        except ClientGone:
            return
        except BodyTooLarge:
            too_large = PayloadTooLarge(f"the body is larger than {self._max_body_bytes} bytes", http_status=413)
            await send_error(self._dialect, too_large, {}, send)
        except TollgateError as error:
            await send_error(self._dialect, error, {}, send)
        else:
            counted = orjson.dumps({"input_tokens": usage.input_tokens})
            await answer(200, counted, "application/json", [ESTIMATED]).send(send)
