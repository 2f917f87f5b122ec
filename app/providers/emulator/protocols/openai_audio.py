"""OpenAI text to speech and speech to text."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import orjson

from app.providers.emulator.composition import DEFAULT_REPLY, text_tokens
from app.providers.emulator.media import sound_seconds, speech
from app.providers.emulator.multipart import read_form
from app.providers.emulator.protocols.openai_errors import write_error
from app.providers.emulator.protocols.reading import event, object_of, read_object, size_of
from app.providers.emulator.wire import (
    EVENT_STREAM_TYPE,
    Answer,
    Body,
    Call,
    Head,
    Operation,
    Refusal,
    Usage,
    bad_request,
)

_SOUND_TYPES = {
    "mp3": b"audio/mpeg",
    "opus": b"audio/ogg",
    "aac": b"audio/aac",
    "flac": b"audio/flac",
    "wav": b"audio/wav",
    "pcm": b"audio/pcm",
}
_SOUND_PART_BYTES = 4096
_MOST_CHARACTERS = 4096
_TOKENS_PER_SECOND = 10
"""Of sound that gpt-4o-transcribe hears."""
_TEXT_FORMATS = frozenset({"text", "srt", "vtt"})
_FORMATS = _TEXT_FORMATS | {"json", "verbose_json", "diarized_json"}


@dataclass(slots=True, kw_only=True)
class SpeechCall(Call):
    audio_format: str
    by_events: bool


class Speech(Operation[SpeechCall]):
    """Billed by characters; gpt-4o-mini-tts, by tokens, says so only in a stream of events."""

    name = "speech"

    def read(self, head: Head, body: bytes) -> SpeechCall:
        request = read_object(body)
        for name in ("model", "input", "voice"):
            if not request.get(name):
                raise bad_request(f"Missing required parameter: '{name}'.", name)
        text, audio_format = str(request["input"]), str(request.get("response_format") or "mp3")
        if len(text) > _MOST_CHARACTERS:
            raise bad_request(f"Invalid 'input': at most {_MOST_CHARACTERS} characters, not {len(text)}.", "input")
        if audio_format not in _SOUND_TYPES:
            raise bad_request(f"Invalid 'response_format': {audio_format!r:.100}.", "response_format")
        by_events = request.get("stream_format") == "sse"
        serves = Usage(characters=len(text))
        if str(request["model"]).startswith("gpt-"):
            serves.input_tokens = text_tokens(size_of(text))
            serves.output_tokens = text_tokens(5 * len(text))
        return SpeechCall(
            model=str(request["model"]),
            prompt_bytes=size_of(text),
            last_text=text,
            stream=by_events,
            metadata=object_of(request.get("metadata")),
            serves=serves,
            audio_format=audio_format,
            by_events=by_events,
        )

    def write(self, call: SpeechCall, answer: Answer) -> Body:
        sound = speech(answer.usage.characters, call.audio_format)
        parts = [sound[at : at + _SOUND_PART_BYTES] for at in range(0, len(sound), _SOUND_PART_BYTES)]
        if not call.by_events:
            return Body(parts, _SOUND_TYPES[call.audio_format], streamed=True)
        events = []
        for part in parts:
            delta = {"type": "speech.audio.delta", "audio": base64.b64encode(part).decode()}
            events.append(event(delta, "speech.audio.delta"))
        done: dict[str, Any] = {"type": "speech.audio.done"}
        if answer.report_usage:
            done["usage"] = _tokens(answer.usage)
        return Body([*events, event(done, "speech.audio.done")], EVENT_STREAM_TYPE, streamed=True)

    def write_broken_stream(self, call: SpeechCall, refusal: Refusal, request_id: str) -> bytes | None:
        return b"data: " + write_error(refusal) + b"\n\n" if call.by_events else None


@dataclass(slots=True, kw_only=True)
class TranscriptionCall(Call):
    answer_format: str
    heard_seconds: float
    language: str
    by_words: bool


class Transcription(Operation[TranscriptionCall]):
    """whisper-1 is billed by seconds, gpt-4o-transcribe by tokens; both say so."""

    name = "transcription"

    def read(self, head: Head, body: bytes) -> TranscriptionCall:
        form = read_form(head.headers.get(b"content-type", b""), body)
        fields = form.fields
        if "file" not in form.files:
            raise bad_request("Missing required parameter: 'file'.", "file")
        if not fields.get("model"):
            raise bad_request("you must provide a model parameter", "model")
        answer_format = fields.get("response_format", "json")
        if answer_format not in _FORMATS:
            raise bad_request(f"Invalid 'response_format': {answer_format!r:.100}.", "response_format")
        model, seconds = fields["model"], sound_seconds(form.files["file"])
        serves = Usage(seconds=seconds)
        if not model.startswith("whisper"):
            serves.input_tokens = max(1, round(seconds * _TOKENS_PER_SECOND))
            serves.output_tokens = text_tokens(len(DEFAULT_REPLY))
        prompt = fields.get("prompt", "")
        return TranscriptionCall(
            model=model,
            prompt_bytes=size_of(prompt),
            last_text=prompt,
            stream=fields.get("stream") == "true" and not model.startswith("whisper"),
            serves=serves,
            answer_format=answer_format,
            heard_seconds=seconds,
            language=fields.get("language", "english"),
            by_words="word" in fields.get("timestamp_granularities[]", ""),
        )

    def write(self, call: TranscriptionCall, answer: Answer) -> Body:
        text, usage = answer.text, answer.usage
        if call.stream:
            return Body(_transcript_events(answer), EVENT_STREAM_TYPE, streamed=True)
        if call.answer_format in _TEXT_FORMATS:
            return Body([_written(call, text, usage.seconds).encode()], b"text/plain; charset=utf-8")
        body: dict[str, Any] = {"text": text}
        if call.answer_format == "verbose_json":
            body = {"task": "transcribe", "language": call.language, "duration": usage.seconds, **body}
            body["segments"] = [_segment(text, usage.seconds)]
            if call.by_words:
                words = text.split()
                step = usage.seconds / max(1, len(words))
                body["words"] = [
                    {"word": word, "start": round(at * step, 3), "end": round((at + 1) * step, 3)}
                    for at, word in enumerate(words)
                ]
        if answer.report_usage:
            body["usage"] = _tokens(usage) if usage.input_tokens else {"type": "duration", "seconds": usage.seconds}
        return Body([orjson.dumps(body)])

    def write_broken_stream(self, call: TranscriptionCall, refusal: Refusal, request_id: str) -> bytes:
        return b"data: " + write_error(refusal) + b"\n\n"


class Translation(Transcription):
    name = "translation"


def _transcript_events(answer: Answer) -> list[bytes]:
    events = [
        event({"type": "transcript.text.delta", "delta": piece}, "transcript.text.delta") for piece in answer.pieces
    ]
    done: dict[str, Any] = {"type": "transcript.text.done", "text": answer.text}
    if answer.report_usage:
        done["usage"] = _tokens(answer.usage)
    return [*events, event(done, "transcript.text.done")]


def _tokens(usage: Usage) -> dict[str, Any]:
    return {
        "type": "tokens",
        "input_tokens": usage.input_tokens,
        "input_token_details": {"text_tokens": 0, "audio_tokens": usage.input_tokens},
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _segment(text: str, seconds: float) -> dict[str, Any]:
    return {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": seconds,
        "text": text,
        "tokens": list(range(text_tokens(len(text)))),
        "temperature": 0.0,
        "avg_logprob": -0.1,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.01,
    }


def _written(call: TranscriptionCall, text: str, seconds: float) -> str:
    if call.answer_format == "text":
        return text + "\n"
    mark = "," if call.answer_format == "srt" else "."
    end = f"{int(seconds // 3600):02}:{int(seconds // 60 % 60):02}:{int(seconds % 60):02}{mark}000"
    cue = f"00:00:00{mark}000 --> {end}\n{text}\n\n"
    return "1\n" + cue if call.answer_format == "srt" else "WEBVTT\n\n" + cue
