"""The video endpoints: what they create is a queued request like any other, which a worker runs.

https://platform.openai.com/docs/api-reference/videos (2026-11-20)
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
import structlog
from pydantic import SecretStr
from starlette.types import Receive, Scope, Send

from app.access.authenticator import Authenticator
from app.access.records import Identity, Permission
from app.api.asgi import Answer, BodyTooLarge, ClientGone, answer, authenticate, header, read_body
from app.catalog.snapshot import Snapshot
from app.catalog.snapshots import SnapshotHolder
from app.config import Config
from app.db.trouble import DATABASE_TROUBLE
from app.errors import DatabaseUnavailable, NotFound, PayloadTooLarge, RequestRefused, TollgateError, ValidationError
from app.gateway.files import VideoFiles
from app.gateway.http import authorization_of, masked, send_error
from app.gateway.models import find_model
from app.gateway.options import PREFIX, GatewayOptions, read_options
from app.money import print_decimal
from app.providers.adapter import Adapter, ModelCall
from app.providers.dialect import ClientCall, Dialect
from app.providers.openai.videos import decode_video, encode_video
from app.providers.operations import Operation
from app.providers.video import DEFAULT_SECONDS
from app.requests.parameters import check_parameters
from app.requests.payload import OPERATION_OF_TYPE
from app.requests.preparation import Preparation
from app.requests.records import SubmitRequest
from app.requests.service import RequestService
from app.videos.records import ModelRequestStatus, Video
from app.videos.service import VideoService

PATH: Final = "/v1/videos"
_DEFAULT_PAGE: Final = 20
_ORDERS: Final = ("asc", "desc")
_STATUSES: Final = {
    ModelRequestStatus.PENDING: "queued",
    ModelRequestStatus.PROCESSING: "in_progress",
    ModelRequestStatus.COMPLETED: "completed",
    ModelRequestStatus.FAILED: "failed",
    ModelRequestStatus.CANCELLED: "failed",
}

_log = structlog.get_logger(__name__)


class VideosEndpoint:
    """Everything under /v1/videos. `dialect` writes the errors."""

    def __init__(
        self,
        dialect: Dialect,
        *,
        config: Config,
        authenticator: Authenticator,
        snapshots: SnapshotHolder,
        preparation: Preparation,
        adapters: Mapping[str, Adapter],
        requests: RequestService,
        videos: VideoService,
        files: VideoFiles,
    ) -> None:
        self._dialect = dialect
        self._config = config
        self._authenticator = authenticator
        self._snapshots = snapshots
        self._preparation = preparation
        self._adapters = adapters
        self._requests = requests
        self._videos = videos
        self._files = files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        max_bytes = self._config.gateway_max_body_bytes
        try:
            identity = await authenticate(self._authenticator, authorization_of(scope))
            await self._serve(scope, identity, receive, send)
        except ClientGone:
            return
        except BodyTooLarge:
            too_large = PayloadTooLarge(f"the body is larger than {max_bytes} bytes", http_status=413)
            await send_error(self._dialect, too_large, {}, send)
        except TollgateError as error:
            await send_error(self._dialect, error, {}, send)
        except DATABASE_TROUBLE as error:
            _log.warning("videos_not_served", error=str(error))
            await send_error(self._dialect, DatabaseUnavailable("the database does not answer"), {}, send)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told an id to ask the operator with
            await send_error(self._dialect, masked(error), {}, send)

    async def _serve(self, scope: Scope, identity: Identity, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"].removeprefix(PATH).split("/")[1:]
        match method, path:
            case "POST", []:
                _query(scope)
                await (await self._create(scope, identity, receive)).send(send)
            case "GET", []:
                await (await self._list(scope, identity)).send(send)
            case "GET", [id]:
                _query(scope)
                identity.require(Permission.READ_REQUESTS)
                await _shown(await self._videos.get(id, workspace_id=identity.workspace_id)).send(send)
            case "DELETE", [id]:
                _query(scope)
                await (await self._delete(id, identity)).send(send)
            case "GET", [id, "content"]:
                identity.require(Permission.READ_REQUESTS)
                variant = _query(scope, "variant").get("variant", "video")
                if variant != "video":
                    raise ValidationError("variant", variant, "video: there are no thumbnails and no spritesheets")
                await self._files.send(id, identity.workspace_id, receive, send)
            case _:
                raise NotFound("endpoint", f"{method} {scope['path']}")

    async def _create(self, scope: Scope, identity: Identity, receive: Receive) -> Answer:
        identity.require(Permission.SUBMIT_REQUESTS)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        body = await read_body(receive, header(scope, b"content-length"), self._config.gateway_max_body_bytes)
        options = read_options(headers, default_wait_seconds=self._config.gateway_wait_seconds)
        if headers.get(f"{PREFIX}on-disconnect") == "cancel":
            raise ValidationError(f"{PREFIX}on-disconnect", "cancel", "detach: nobody waits while a video is made")
        snapshot = self._snapshots.current
        submission = self._submission(decode_video(body, headers), options, headers, snapshot, identity)
        self._check(submission, snapshot, identity)
        request = await self._requests.submit(
            submission, workspace_id=identity.workspace_id, created_by=identity.token_id
        )
        return _shown(await self._videos.get(request.id, workspace_id=identity.workspace_id))

    def _submission(
        self,
        call: ClientCall,
        options: GatewayOptions,
        headers: Mapping[str, str],
        snapshot: Snapshot,
        identity: Identity,
    ) -> SubmitRequest:
        deadline = None
        if f"{PREFIX}wait-seconds" in headers:
            # Else it waits as long as it takes: its client does not wait with it.
            seconds = options.wait_seconds + self._config.call_timeout_seconds
            deadline = datetime.now(UTC) + timedelta(seconds=seconds)
        return SubmitRequest(
            model=find_model(snapshot, call.model, identity.workspace_id),
            request=call.request,
            parameters=call.parameters,
            priority=options.priority,
            idempotency_key=headers.get("idempotency-key"),
            deadline=deadline,
            fallbacks=tuple(find_model(snapshot, name, identity.workspace_id) for name in options.fallbacks),
        )

    def _check(self, submission: SubmitRequest, snapshot: Snapshot, identity: Identity) -> None:
        """What the model's protocol cannot express is told now, and not by a request that fails later."""
        try:
            model, provider = self._preparation.usable_model(snapshot, submission.model, identity.workspace_id)
        except RequestRefused:
            return  # submitting tells, or finds that it is a repeat
        if OPERATION_OF_TYPE[model.model_type] is not Operation.VIDEO:
            return
        adapter = self._adapters[provider.adapter]
        if Operation.VIDEO not in adapter.operations:
            raise ValidationError(
                "model", snapshot.ref(model), f"of a provider whose protocol has videos, which {adapter.name!r} has not"
            )
        assert submission.request is not None
        adapter.render(
            ModelCall(
                model_id=model.model_id,
                base_url=provider.base_url or adapter.default_base_url,
                credential=SecretStr(""),
                request=submission.request,
                parameters=check_parameters(submission.parameters, model),
                request_id="",
                allows_unknown=model.allows_unknown_parameters,
            )
        )

    async def _list(self, scope: Scope, identity: Identity) -> Answer:
        identity.require(Permission.READ_REQUESTS)
        asked = _query(scope, "after", "limit", "order")
        limit, order = asked.get("limit", str(_DEFAULT_PAGE)), asked.get("order", "desc")
        if not limit.isdecimal() or len(limit) > 9:
            raise ValidationError("limit", limit, "a whole number")
        if order not in _ORDERS:
            raise ValidationError("order", order, "asc or desc")
        videos, has_more = await self._videos.page(
            workspace_id=identity.workspace_id,
            after=asked.get("after"),
            limit=int(limit),
            newest_first=order == "desc",
        )
        shown = {
            "object": "list",
            "data": [_object(video) for video in videos],
            "first_id": videos[0].id if videos else None,
            "last_id": videos[-1].id if videos else None,
            "has_more": has_more,
        }
        return answer(200, orjson.dumps(shown), "application/json")

    async def _delete(self, id: str, identity: Identity) -> Answer:
        identity.require(Permission.SUBMIT_REQUESTS)
        is_deleted = await self._videos.delete(id, workspace_id=identity.workspace_id)
        body = {"id": id, "object": "video.deleted", "deleted": is_deleted}
        return answer(200, orjson.dumps(body), "application/json", _headers(id))


def _query(scope: Scope, *known: str) -> dict[str, str]:
    """Raises ValidationError for a parameter that is not known, or given twice."""
    asked: dict[str, str] = {}
    for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        if name not in known or name in asked:
            raise ValidationError(name, value, "given once" if name in asked else "left out")
        asked[name] = value
    return asked


def _shown(video: Video) -> Answer:
    headers = _headers(video.id)
    if video.status is ModelRequestStatus.COMPLETED and video.cost_total is not None and video.currency is not None:
        headers.append((b"x-tollgate-cost", print_decimal(video.cost_total).encode()))
        headers.append((b"x-tollgate-currency", video.currency.encode()))
    return answer(200, orjson.dumps(_object(video)), "application/json", headers)


def _headers(id: str) -> list[tuple[bytes, bytes]]:
    return [(name, id.encode()) for name in (b"x-tollgate-request-id", b"x-request-id", b"request-id")]


def _object(video: Video) -> dict[str, Any]:
    is_completed = video.status is ModelRequestStatus.COMPLETED
    return encode_video(
        id=video.id,
        model=video.model_ref,
        status=_STATUSES[video.status],
        prompt=video.prompt,
        seconds=_seconds(video),
        size=video.size,
        created_at=video.created_at,
        completed_at=video.finished_at if is_completed else None,
        error=_error(video),
    )


def _seconds(video: Video) -> str:
    """What was billed, else what is asked for."""
    if video.seconds:
        return print_decimal(video.seconds)
    return video.wanted_seconds or str(DEFAULT_SECONDS)


def _error(video: Video) -> dict[str, str] | None:
    if video.status is ModelRequestStatus.CANCELLED and not video.error:
        return {"code": "cancelled", "message": "the video was cancelled"}
    if video.status not in (ModelRequestStatus.FAILED, ModelRequestStatus.CANCELLED):
        return None
    error = video.error or {}
    return {"code": str(error.get("code", "unknown")).lower(), "message": str(error.get("message", ""))}
