"""Which path speaks which dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.asgi import header
from app.api.services import ApiServices
from app.errors import NotFound
from app.gateway.count_tokens import CountTokensEndpoint
from app.gateway.files import VideoFiles
from app.gateway.http import GatewayEndpoint, send_error
from app.gateway.listing import ModelsEndpoint
from app.gateway.videos import PATH as VIDEOS
from app.gateway.videos import VideosEndpoint
from app.providers.anthropic import AnthropicMessagesDialect
from app.providers.cohere import RerankDialect
from app.providers.dialect import Dialect
from app.providers.openai.chat_dialect import OpenAIChatDialect
from app.providers.openai.embeddings import OpenAIEmbeddingsDialect
from app.providers.openai.images import OpenAIImagesDialect
from app.providers.openai.moderations import OpenAIModerationsDialect
from app.providers.openai.responses import OpenAIResponsesDialect
from app.providers.openai.speech import OpenAISpeechDialect
from app.providers.openai.transcriptions import OpenAITranscriptionDialect
from app.providers.registry import ADAPTERS

_OPENAI: Final = OpenAIChatDialect()
_ANTHROPIC: Final = AnthropicMessagesDialect()
DIALECTS: Final[Mapping[str, Dialect]] = {
    "/v1/chat/completions": _OPENAI,
    "/v1/responses": OpenAIResponsesDialect(),
    "/v1/embeddings": OpenAIEmbeddingsDialect(),
    "/v1/images/generations": OpenAIImagesDialect(),
    "/v1/audio/speech": OpenAISpeechDialect(),
    "/v1/audio/transcriptions": OpenAITranscriptionDialect(),
    "/v1/moderations": OpenAIModerationsDialect(),
    "/v1/rerank": RerankDialect(),
    "/v1/messages": _ANTHROPIC,
}
_COUNT_TOKENS: Final = "/v1/messages/count_tokens"
_MODELS: Final = "/v1/models"


class Gateway:
    """The ASGI application under /v1/."""

    def __init__(self, services: ApiServices) -> None:
        self._posts: dict[str, ASGIApp] = {
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
        self._posts[_COUNT_TOKENS] = CountTokensEndpoint(
            _ANTHROPIC,
            authenticator=services.authenticator,
            snapshots=services.snapshots,
            preparation=services.preparation,
            max_body_bytes=services.config.gateway_max_body_bytes,
        )
        self._videos = VideosEndpoint(
            _OPENAI,
            config=services.config,
            authenticator=services.authenticator,
            snapshots=services.snapshots,
            preparation=services.preparation,
            adapters=ADAPTERS,
            requests=services.requests,
            videos=services.videos,
            files=VideoFiles(services.videos, services.downloads),
        )
        self._models = ModelsEndpoint(services.authenticator, services.snapshots, openai=_OPENAI, anthropic=_ANTHROPIC)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        endpoint = self._posts.get(path)
        if endpoint is not None and method == "POST":
            await endpoint(scope, receive, send)
        elif method == "GET" and (path == _MODELS or path.startswith(_MODELS + "/")):
            await self._models(scope, receive, send)
        elif path == VIDEOS or path.startswith(VIDEOS + "/"):
            await self._videos(scope, receive, send)
        else:
            dialect = _ANTHROPIC if header(scope, b"anthropic-version") else _OPENAI
            await send_error(dialect, NotFound("endpoint", f"{method} {path}"), {}, send)
