"""Direct calls of models that do not chat."""

from __future__ import annotations

import asyncio
import io
import wave
from decimal import Decimal

import pytest

import tollgate
from tests.gateway_server import GatewayServer
from tollgate import Service


def sound(seconds: int = 2) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(bytes(2 * 8000 * seconds))
    return file.getvalue()


def test_texts_are_embedded_at_the_cost_of_the_ledger(service: Service, server: GatewayServer) -> None:
    result = service.embed("oai:embed-1", ["one", "two"], dimensions=8, priority=3)
    assert [len(vector) for vector in result.data] == [8, 8]
    assert result.data[0] != result.data[1]
    (row,) = server.rows("SELECT cost_total, priority, operation FROM model_requests WHERE id = $1", result.request_id)
    assert (row["cost_total"], row["priority"], row["operation"]) == (result.cost, 3, "EMBEDDING")
    assert result.wait_seconds is not None
    assert service.embed("oai:embed-1", "one", dimensions=8).data == result.data[:1]


def test_documents_are_ranked(service: Service) -> None:
    result = service.rerank("coh:rerank-1", "two", ["one", "two", "three"], top_n=2)
    assert len(result.data) == 2
    assert result.data[0].score >= result.data[1].score
    assert {place.index for place in result.data} <= {0, 1, 2}
    assert result.cost == Decimal("0.002")


def test_texts_are_moderated(service: Service) -> None:
    result = service.moderate("oai:moderation-1", ["one", "two"])
    assert [judgement.is_flagged for judgement in result.data] == [False, False]
    assert set(result.data[0].categories) == set(result.data[0].scores)


def test_images_are_generated(service: Service) -> None:
    result = service.generate_images("oai:image-1", "a cat", n=2)
    assert result.cost == Decimal("0.08")
    assert all(image.data or image.url for image in result.data)
    assert len(result.data) == 2


def test_what_is_spoken_is_transcribed(service: Service) -> None:
    spoken = service.speak("oai:tts-1", "Hello", voice="alloy", response_format="wav")
    assert spoken.data.startswith(b"RIFF")
    assert spoken.cost == Decimal("0.000075")
    heard = service.transcribe("oai:whisper-1", sound(), filename="hello.wav", temperature=0.2)
    assert heard.data
    assert heard.cost == Decimal("0.0002")


async def test_asyncio_has_them_all(service: Service) -> None:
    results = await asyncio.gather(
        service.embed_async("oai:embed-1", "one"),
        service.rerank_async("coh:rerank-1", "q", ["a"]),
        service.moderate_async("oai:moderation-1", "one"),
        service.generate_images_async("oai:image-1", "a cat"),
        service.speak_async("oai:tts-1", "Hello", voice="alloy"),
        service.transcribe_async("oai:whisper-1", sound()),
    )
    assert all(result.data for result in results)
    assert len({result.request_id for result in results}) == 6
    await service.aclose()


def test_a_model_of_another_kind_is_refused_by_name(service: Service) -> None:
    with pytest.raises(tollgate.ValidationError, match="embed-1"):
        service("oai:embed-1", "Hello")
    with pytest.raises(tollgate.ValidationError, match="chat-1"):
        service.embed("oai:chat-1", "Hello")
