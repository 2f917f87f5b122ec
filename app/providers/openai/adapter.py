"""The OpenAI protocol's client side: one adapter over all its endpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from pydantic import SecretStr

from app.errors import InvalidRequest
from app.providers.adapter import ModelCall, ModelResponse, StreamReader, Unfinished, WireRequest, WireResponse
from app.providers.cohere import CohereAdapter
from app.providers.openai.chat import parse_chat, render_chat
from app.providers.openai.chat_stream import ChatStreamReader
from app.providers.openai.embeddings import parse_embeddings, render_embeddings
from app.providers.openai.images import parse_image, render_image
from app.providers.openai.moderations import parse_moderation, render_moderation
from app.providers.openai.speech import parse_speech, render_speech
from app.providers.openai.transcriptions import parse_transcription, render_transcription
from app.providers.openai.videos import parse_video, render_video
from app.providers.openai.wire import bearer, is_openai_itself
from app.providers.operations import OPERATION_OF, Operation


class _Endpoint(NamedTuple):
    render: Callable[[ModelCall], WireRequest]
    parse: Callable[[ModelCall, WireResponse], ModelResponse | Unfinished]


_RERANK: Final = CohereAdapter()
"""Compatible servers rerank as Cohere does: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html"""

_ENDPOINTS: Final = {
    Operation.CHAT: _Endpoint(render_chat, parse_chat),
    Operation.EMBEDDING: _Endpoint(render_embeddings, parse_embeddings),
    Operation.RERANK: _Endpoint(_RERANK.render, _RERANK.parse),
    Operation.IMAGE: _Endpoint(render_image, parse_image),
    Operation.SPEECH: _Endpoint(render_speech, parse_speech),
    Operation.TRANSCRIPTION: _Endpoint(render_transcription, parse_transcription),
    Operation.MODERATION: _Endpoint(render_moderation, parse_moderation),
    Operation.VIDEO: _Endpoint(render_video, parse_video),
}


class OpenAIAdapter:
    """The base URL includes the version: "https://api.openai.com/v1"."""

    name: Final = "openai"
    default_base_url: Final = "https://api.openai.com/v1"
    operations: Final = frozenset(_ENDPOINTS)

    def render(self, call: ModelCall) -> WireRequest:
        operation = OPERATION_OF[type(call.request)]
        if call.stream and operation is not Operation.CHAT:
            raise InvalidRequest(f"stream: the answers of the operation {operation} come whole")
        if operation is Operation.RERANK and is_openai_itself(call.base_url):
            raise InvalidRequest("OpenAI itself has no reranking; servers compatible with it do")
        return _ENDPOINTS[operation].render(call)

    def parse(self, call: ModelCall, response: WireResponse) -> ModelResponse | Unfinished:
        return _ENDPOINTS[OPERATION_OF[type(call.request)]].parse(call, response)

    def file_request(self, url: str, credential: SecretStr) -> WireRequest:
        return WireRequest(url, bearer(credential), b"", method="GET")

    def stream_reader(self, call: ModelCall) -> StreamReader:
        return ChatStreamReader(call)
