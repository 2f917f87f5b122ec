"""Which path speaks which dialect, and the list of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from app.access.records import Permission
from app.api.asgi import answer, authenticate
from app.api.services import ApiServices
from app.catalog.records import LlmModel, LlmProvider
from app.catalog.snapshot import Snapshot
from app.errors import NotFound, TollgateError
from app.gateway.http import GatewayEndpoint, authorization_of
from app.providers.anthropic import AnthropicMessagesDialect
from app.providers.cohere import RerankDialect
from app.providers.dialect import Dialect
from app.providers.openai_chat_dialect import OpenAIChatDialect
from app.providers.openai_embeddings import OpenAIEmbeddingsDialect
from app.providers.openai_errors import encode_error
from app.providers.openai_images import OpenAIImagesDialect
from app.providers.openai_moderations import OpenAIModerationsDialect
from app.providers.openai_responses import OpenAIResponsesDialect

DIALECTS: Final[Mapping[str, Dialect]] = {
    "/v1/chat/completions": OpenAIChatDialect(),
    "/v1/responses": OpenAIResponsesDialect(),
    "/v1/embeddings": OpenAIEmbeddingsDialect(),
    "/v1/images/generations": OpenAIImagesDialect(),
    "/v1/moderations": OpenAIModerationsDialect(),
    "/v1/rerank": RerankDialect(),
    "/v1/messages": AnthropicMessagesDialect(),
}
_MODELS: Final = "/v1/models"


class Gateway:
    """The ASGI application under /v1/."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._endpoints: dict[str, ASGIApp] = {
            path: GatewayEndpoint(
                dialect,
                config=services.config,
                authenticator=services.authenticator,
                snapshots=services.snapshots,
                preparation=services.preparation,
                calls=services.gateway,
            )
            for path, dialect in DIALECTS.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        endpoint = self._endpoints.get(path)
        if endpoint is not None and method == "POST":
            await endpoint(scope, receive, send)
        elif method == "GET" and (path == _MODELS or path.startswith(_MODELS + "/")):
            await self._models(scope, send, path.removeprefix(_MODELS).removeprefix("/"))
        else:
            status = 404 if endpoint is None else 405
            body = {
                "error": {
                    "message": f"no {method} {path}",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": None,
                }
            }
            await answer(status, orjson.dumps(body), "application/json").send(send)

    async def _models(self, scope: Scope, send: Send, name: str) -> None:
        try:
            identity = await authenticate(self._services.authenticator, authorization_of(scope))
            identity.require(Permission.READ_CATALOG)
            snapshot = self._services.snapshots.current
            shown: dict[str, Any]
            if name:
                model = snapshot.model(name) or _by_ref(snapshot, name, identity.workspace_id)
                shown = _show(snapshot, model)
            else:
                models = [
                    m for m in snapshot.models if m.workspace_id == identity.workspace_id and snapshot.is_usable(m)
                ]
                shown = {"object": "list", "data": [_show(snapshot, model) for model in models]}
        except TollgateError as error:
            encoded = encode_error(error)
            headers = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in encoded.headers.items()]
            await answer(encoded.status, encoded.body, "application/json", headers).send(send)
            return
        await answer(200, orjson.dumps(shown), "application/json").send(send)


def _by_ref(snapshot: Snapshot, name: str, workspace_id: str) -> LlmModel:
    model = snapshot.model_by_ref(name, workspace_id) if ":" in name else None
    if model is None:
        raise NotFound("LlmModel", name, path=("model",))
    return model


def _show(snapshot: Snapshot, model: LlmModel) -> dict[str, Any]:
    provider: LlmProvider = snapshot.provider_of(model)
    return {
        "id": snapshot.ref(model),
        "object": "model",
        "created": int(model.created_at.timestamp()),
        "owned_by": provider.name,
        # As Anthropic's list has it.
        "type": "model",
        "display_name": model.display_name,
        "created_at": model.created_at.isoformat(),
    }
