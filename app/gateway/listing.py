"""The catalog's usable models as the SDKs of OpenAI and of Anthropic list them."""

from __future__ import annotations

from datetime import UTC
from typing import Any, Final
from urllib.parse import parse_qs

import orjson
from starlette.types import Receive, Scope, Send

from app.access.authenticator import Authenticator
from app.access.records import Permission
from app.api.asgi import answer, authenticate, header
from app.catalog.records import LlmModel
from app.catalog.snapshot import Snapshot
from app.catalog.snapshots import SnapshotHolder
from app.errors import NotFound, TollgateError, ValidationError
from app.gateway.http import authorization_of, send_error
from app.gateway.models import find_model
from app.providers.dialect import Dialect

_DEFAULT_PAGE: Final = 20
_MAX_PAGE: Final = 1000


class ModelsEndpoint:
    """GET /v1/models and /v1/models/{ref, id or name}: Anthropic's shapes for clients that name its API version."""

    def __init__(
        self, authenticator: Authenticator, snapshots: SnapshotHolder, *, openai: Dialect, anthropic: Dialect
    ) -> None:
        self._authenticator = authenticator
        self._snapshots = snapshots
        self._openai = openai
        self._anthropic = anthropic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_anthropic = bool(header(scope, b"anthropic-version"))
        name = scope["path"].removeprefix("/v1/models").removeprefix("/")
        try:
            identity = await authenticate(self._authenticator, authorization_of(scope))
            identity.require(Permission.READ_CATALOG)
            snapshot = self._snapshots.current
            show = _as_anthropic if is_anthropic else _as_openai
            shown: dict[str, Any]
            if name:
                shown = show(snapshot, _named(snapshot, name, identity.workspace_id))
            else:
                models = [
                    model
                    for model in snapshot.models
                    if model.workspace_id == identity.workspace_id and snapshot.is_usable(model)
                ]
                if is_anthropic:
                    shown = _page(snapshot, models, scope["query_string"].decode("latin-1"))
                else:
                    shown = {"object": "list", "data": [show(snapshot, model) for model in models]}
        except TollgateError as error:
            await send_error(self._anthropic if is_anthropic else self._openai, error, {}, send)
            return
        await answer(200, orjson.dumps(shown), "application/json").send(send)


def _named(snapshot: Snapshot, name: str, workspace_id: str) -> LlmModel:
    found = find_model(snapshot, name, workspace_id)
    model = snapshot.model(found) or snapshot.model_by_ref(found, workspace_id)
    if model is None or model.workspace_id != workspace_id or not snapshot.is_usable(model):
        raise NotFound("LlmModel", name, path=("model",))
    return model


def _as_openai(snapshot: Snapshot, model: LlmModel) -> dict[str, Any]:
    return {
        "id": snapshot.ref(model),
        "object": "model",
        "created": int(model.created_at.timestamp()),
        "owned_by": snapshot.provider_of(model).name,
    }


def _as_anthropic(snapshot: Snapshot, model: LlmModel) -> dict[str, Any]:
    return {
        "type": "model",
        "id": snapshot.ref(model),
        "display_name": model.display_name,
        "created_at": model.created_at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def _page(snapshot: Snapshot, models: list[LlmModel], query: str) -> dict[str, Any]:
    """As https://platform.claude.com/docs/en/api/models/list (2026-11-20)."""
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    shown = [_as_anthropic(snapshot, model) for model in models]
    ids = [model["id"] for model in shown]
    limit = _limit(asked.get("limit"))
    if (before := asked.get("before_id")) is not None:
        end = _place(ids, before, "before_id")
        page, has_more = shown[max(0, end - limit) : end], end > limit
    else:
        after = asked.get("after_id")
        start = 0 if after is None else _place(ids, after, "after_id") + 1
        page, has_more = shown[start : start + limit], len(shown) > start + limit
    return {
        "data": page,
        "has_more": has_more,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT_PAGE
    if not text.isdecimal() or not 1 <= int(text) <= _MAX_PAGE:
        raise ValidationError("limit", text, f"a number between 1 and {_MAX_PAGE}")
    return int(text)


def _place(ids: list[str], id: str, field: str) -> int:
    try:
        return ids.index(id)
    except ValueError:
        raise ValidationError(field, id, "the id of a model of the list") from None
