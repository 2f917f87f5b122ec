"""Kinds of models by their names."""

from __future__ import annotations

import pytest

from app.db.rows import LlmModelType
from seed.model_types import model_type_of


@pytest.mark.parametrize(
    ("model_id", "kind"),
    [
        ("gpt-4o", "TEXT"),
        ("text-embedding-3-small", "EMBEDDING"),
        ("@cf/baai/bge-reranker-base", "RERANK"),
        ("whisper-1", "SPEECH_TO_TEXT"),
        ("gpt-4o-mini-transcribe", "SPEECH_TO_TEXT"),
        ("tts-1-hd", "TEXT_TO_SPEECH"),
        ("gemini-2.5-flash-tts", "TEXT_TO_SPEECH"),
        ("moderation", "MODERATION"),
        ("meta-llama/llama-guard-4-12b", "TEXT"),
        ("gpt-image-1", "IMAGE"),
        ("gemini-2.5-flash-image", "IMAGE"),
        ("google/gemini-2.5-flash-image", "TEXT"),
        ("veo-3", "VIDEO"),
    ],
)
def test_a_name_tells_the_kind(model_id: str, kind: str) -> None:
    assert model_type_of(model_id) == kind
    assert kind in LlmModelType.__members__
