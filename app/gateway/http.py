"""The gateway's endpoints, straight on ASGI: decode, prepare, wait for a permit, answer in the client's dialect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

import structlog
from starlette.types import Receive, Scope, Send

from app.access.authenticator import Authenticator
from app.access.records import Identity, Permission
from app.api.asgi import BodyTooLarge, ClientGone, authenticate, header, read_body
from app.api.errors import mask
from app.catalog.snapshots import SnapshotHolder
from app.config import Config
from app.errors import (
    LeaseLost,
    ModelUnavailable,
    PayloadTooLarge,
    RateLimited,
    TollgateError,
)
from app.gateway.calls import GatewayCalls
from app.gateway.live import LiveCall
from app.gateway.models import find_model
from app.gateway.options import GatewayOptions, read_options
from app.money import print_decimal
from app.prices.records import Usage
from app.providers.adapter import ModelResponse
from app.providers.dialect import Answered, ClientCall, Dialect, StreamWriter
from app.providers.operations import Chunk
from app.requests.preparation import Preparation
from app.requests.records import AttemptResult, NewRequest, Outcome, SubmitRequest

_log = structlog.get_logger(__name__)

_UNWATCHED_SECONDS: Final = 0.02
"""So long nobody looks whether the client is still there: many calls are over by then, and need no task for that."""
_SSE_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class GatewayEndpoint:
    """One POST path of the gateway, in one dialect."""

    def __init__(
        self,
        dialect: Dialect,
        *,
        config: Config,
        authenticator: Authenticator,
        snapshots: SnapshotHolder,
        preparation: Preparation,
        calls: GatewayCalls,
    ) -> None:
        self._dialect = dialect
        self._config = config
        self._authenticator = authenticator
        self._snapshots = snapshots
        self._preparation = preparation
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            identity = await authenticate(self._authenticator, authorization_of(scope))
            identity.require(Permission.SUBMIT_REQUESTS)
            max_bytes = self._config.gateway_max_body_bytes
            body = await read_body(receive, header(scope, b"content-length"), max_bytes)
            options = read_options(headers, default_wait_seconds=self._config.gateway_wait_seconds)
            client_call = self._dialect.decode(body, headers)
            row = self._prepare(client_call, options, identity)
            call = self._calls.submit(row, client_call.request, stream=client_call.stream)
        except ClientGone:
            return
        except BodyTooLarge:
            too_large = PayloadTooLarge(f"the body is larger than {max_bytes} bytes", http_status=413)
            await self._refuse(too_large, send)
            return
        except TollgateError as error:
            await self._refuse(error, send)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told an id to ask the operator with
            await self._refuse(masked(error), send)
            return
        await _Exchange(self._dialect, self._calls, client_call, call, options, send).run(receive)

    def _prepare(self, client_call: ClientCall, options: GatewayOptions, identity: Identity) -> NewRequest:
        snapshot = self._snapshots.current
        now = datetime.now(UTC)
        submission = SubmitRequest(
            model=find_model(snapshot, client_call.model, identity.workspace_id),
            request=client_call.request,
            parameters=client_call.parameters,
            priority=options.priority,
            metadata=client_call.metadata,
            fallbacks=tuple(find_model(snapshot, name, identity.workspace_id) for name in options.fallbacks),
        )
        row = self._preparation.prepare(
            submission,
            snapshot,
            workspace_id=identity.workspace_id,
            created_by=identity.token_id,
            now=now,
            owner_id=self._calls.owner_id,
        )
        # Of the whole call; how long it may wait is watched here.
        deadline = now + timedelta(seconds=options.wait_seconds + self._config.call_timeout_seconds)
        return row._replace(deadline=deadline)

    async def _refuse(self, error: TollgateError, send: Send) -> None:
        await send_error(self._dialect, error, {}, send)


class _Exchange:
    """One call with its client, who may hang up at any time.

    The request's own task waits for the end of the call and answers. What is streamed meanwhile is written by the task
    of the call: no chunk waits for another task's turn, and a slow reader makes the provider's connection wait.
    """

    def __init__(
        self,
        dialect: Dialect,
        calls: GatewayCalls,
        client_call: ClientCall,
        call: LiveCall,
        options: GatewayOptions,
        send: Send,
    ) -> None:
        self._dialect = dialect
        self._calls = calls
        self._client_call = client_call
        self._call = call
        self._options = options
        self._send = send
        self._answered = Answered(call.row.id, client_call.model, datetime.now(UTC))
        self._writer: StreamWriter | None = None
        self._has_given_up = False
        self._watches: list[asyncio.Task[None]] = []
        self._has_begun = False
        self._has_failed = False
        if call.chunks is not None:
            call.chunks.deliver_by(self._deliver)

    async def run(self, receive: Receive) -> None:
        call_later = asyncio.get_running_loop().call_later
        timers = (
            call_later(_UNWATCHED_SECONDS, self._watch, self._leave, receive),
            call_later(self._options.wait_seconds, self._watch, self._give_up),
        )
        try:
            await self._answer()
        finally:
            for timer in timers:
                timer.cancel()
            for watch in self._watches:
                watch.cancel()

    def _watch(self, watch: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        self._watches.append(asyncio.create_task(watch(*arguments)))

    async def _leave(self, receive: Receive) -> None:
        """Stops the call when its client hangs up, or lets it go on without."""
        await disconnected(receive)
        if not self._options.detaches:
            await self._calls.cancel(self._call)
        elif self._call.chunks is not None:
            self._call.chunks.discard()

    async def _give_up(self) -> None:
        """Refuses a call that found no permit in time."""
        # However short the wait, what can start at once does.
        await self._call.written.wait()
        if self._call.admitted.done():
            return
        self._has_given_up = True
        await self._calls.cancel(self._call)
        if not self._call.ended.done():
            self._call.ended.set_result(None)

    async def _answer(self) -> None:
        try:
            result = await self._end_of_call()
            if self._call.chunks is None:
                await self._answer_whole(result)
            elif not self._has_failed:
                await self._end_stream(result)
        except TollgateError as error:
            await self._fail(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told an id to ask the operator with
            await self._fail(masked(error))

    async def _end_of_call(self) -> AttemptResult:
        """Raises what the call failed with."""
        try:
            return self._finished(await self._call.ended)
        except TollgateError:
            if not self._has_given_up:
                raise
        # However its cancellation came to be known.
        raise RateLimited(
            f"no permit came free within {self._options.wait_seconds:g} s",
            http_status=429,
            retry_after_seconds=await self._calls.retry_after_seconds(self._call),
        )

    async def _answer_whole(self, result: AttemptResult) -> None:
        response, usage = _response(result)
        body, media_type = self._dialect.encode(self._client_call, response, usage, self._answered)
        headers = [
            (b"content-type", media_type.encode("latin-1")),
            (b"content-length", str(len(body)).encode("latin-1")),
            *_raw(self._headers(result)),
        ]
        self._has_begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def _deliver(self, chunks: Sequence[Chunk]) -> None:
        """Writes what the call has streamed; waits where the client does not read."""
        try:
            data = b"" if self._writer is not None else await self._begin_stream()
            assert self._writer is not None
            data += b"".join([self._writer.write(chunk) for chunk in chunks])
            if data:
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except Exception as error:  # noqa: BLE001 - a defect in the writing is not the call's, which goes on
            await self._fail(masked(error))

    async def _end_stream(self, result: AttemptResult) -> None:
        data = b"" if self._writer is not None else await self._begin_stream()
        assert self._writer is not None
        data += _cost_comment(result) + self._writer.end(_response(result)[1])
        await self._send({"type": "http.response.body", "body": data})

    async def _begin_stream(self) -> bytes:
        self._writer = self._dialect.stream_writer(self._client_call, self._answered)
        self._has_begun = True
        headers = [*_SSE_HEADERS, *_raw(self._headers())]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        return self._writer.start()

    async def _fail(self, error: TollgateError) -> None:
        if self._call.chunks is not None:
            # Nobody reads them any more, and the call must not wait for that.
            self._call.chunks.discard()
        if self._has_failed:
            return
        self._has_failed = True
        if not self._has_begun:
            await send_error(self._dialect, error, self._headers(), self._send)
        elif self._writer is not None:
            await self._send({"type": "http.response.body", "body": self._writer.fail(error)})

    def _finished(self, result: AttemptResult | None) -> AttemptResult:
        """Raises what the call failed with."""
        if result is None:
            raise LeaseLost("the call was lost: its outcome is not known")
        if result.outcome is not Outcome.COMPLETED:
            assert result.cause is not None
            message = result.error.message if result.error is not None else result.cause.message
            raise _with_message(result.cause, message)
        return result

    def _headers(self, result: AttemptResult | None = None) -> dict[str, str]:
        request_id = self._call.row.id
        # As the SDKs of Tollgate's own clients, of OpenAI and of Anthropic look for it.
        headers = {"x-tollgate-request-id": request_id, "x-request-id": request_id, "request-id": request_id}
        if self._call.admitted.done() and not self._call.admitted.cancelled():
            admitted = self._call.admitted.result()
            headers["x-tollgate-wait-ms"] = f"{admitted.wait_seconds * 1000:.1f}"
            headers["x-tollgate-permits-left"] = str(admitted.permits_left)
        if result is not None and (cost := _cost(result)) is not None:
            headers["x-tollgate-cost"], headers["x-tollgate-currency"] = cost
        return headers


def _with_message(error: TollgateError, message: str) -> TollgateError:
    """The same error with the message that is safe to show."""
    error.message = message
    return error


def masked(cause: Exception) -> TollgateError:
    return TollgateError(mask(cause)["message"])


def _response(result: AttemptResult) -> tuple[ModelResponse, Usage]:
    assert result.output is not None
    assert result.usage is not None
    response = ModelResponse(
        output=result.output,
        usage=result.usage,
        response_model=result.response_model,
        provider_request_id=result.provider_request_id,
    )
    return response, result.usage


def _cost(result: AttemptResult) -> tuple[str, str] | None:
    """The amount and its currency; None where a price is not known."""
    if result.cost is None or result.cost.total is None:
        return None
    return print_decimal(result.cost.total), result.cost.currency


def _cost_comment(result: AttemptResult) -> bytes:
    """The cost of a stream is known after its headers are sent. SSE has comments, which clients pass over."""
    cost = _cost(result)
    return b"" if cost is None else f": x-tollgate-cost {cost[0]} {cost[1]}\n\n".encode("latin-1")


async def disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_error(dialect: Dialect, error: TollgateError, headers: Mapping[str, str], send: Send) -> None:
    encoded = dialect.encode_error(error)
    all_headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(encoded.body)).encode("latin-1")),
        *_raw({**headers, **encoded.headers, **_own_headers(error)}),
    ]
    await send({"type": "http.response.start", "status": encoded.status, "headers": all_headers})
    await send({"type": "http.response.body", "body": encoded.body})


def _own_headers(error: TollgateError) -> dict[str, str]:
    """What a dialect's errors cannot tell apart, for Tollgate's own clients."""
    headers = {"x-tollgate-error": error.code}
    if isinstance(error, ModelUnavailable) and error.alternatives:
        headers["x-tollgate-alternatives"] = ",".join(quote(ref, safe=":/") for ref in error.alternatives)
    return headers


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def authorization_of(scope: Scope) -> bytes:
    """Anthropic's SDK sends its key in a header of its own."""
    return header(scope, b"authorization") or (b"Bearer " + key if (key := header(scope, b"x-api-key")) else b"")
