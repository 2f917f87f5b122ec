"""What a model is for, told by its name: the sources know prices, not kinds."""

from __future__ import annotations

import re
from typing import Final

_BY_NAME: Final = (
    ("EMBEDDING", re.compile(r"embed")),
    ("RERANK", re.compile(r"rerank")),
    ("SPEECH_TO_TEXT", re.compile(r"whisper|transcribe")),
    ("TEXT_TO_SPEECH", re.compile(r"(^|-)tts(-|$)")),
    ("MODERATION", re.compile(r"(^|-)moderation(-|$)")),
    # Not of aggregators, which serve image models through chat completions.
    ("IMAGE", re.compile(r"^(chatgpt-image|gpt-image|dall-e|imagen)-|^gemini-[^/]*-image(-|$)")),
    ("VIDEO", re.compile(r"^(sora|veo)-")),
)


def model_type_of(model_id: str) -> str:
    """The name of an LlmModelType; TEXT where nothing says otherwise. `model_id` is the provider's own name."""
    name = model_id.lower()
    return next((kind for kind, pattern in _BY_NAME if pattern.search(name)), "TEXT")
