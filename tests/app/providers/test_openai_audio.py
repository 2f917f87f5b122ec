"""OpenAI's speech and transcriptions, from a client's body to a provider's and back."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.audio import Transcription, TranscriptionVerbose

from app.errors import ConnectionFailed, InvalidRequest, InvalidResponse, ProviderError, RateLimited, ValidationError
from app.prices.records import Usage
from app.providers.adapter import ModelResponse
from app.providers.dialect import ClientCall
from app.providers.openai.adapter import OpenAIAdapter
from app.providers.openai.multipart import FormFile, decode_form, encode_form
from app.providers.openai.speech import OpenAISpeechDialect
from app.providers.openai.transcriptions import OpenAITranscriptionDialect
from app.providers.operations import SpeechOutput, SpeechRequest, TranscriptionOutput, TranscriptionRequest
from tests.app.providers.calls import ANSWERED, answer, events, json_values, model_call, rendered

ADAPTER = OpenAIAdapter()
SPEECH = OpenAISpeechDialect()
TRANSCRIPTION = OpenAITranscriptionDialect()
SAY = SpeechRequest("Hello", "alloy")
HEAR = TranscriptionRequest(b"\x00RIFF\r\n--x", "a b.wav", "audio/wav")


def spoken(response_body: Any, model_id: str = "tts-1", content_type: str = "audio/wav") -> ModelResponse:
    call = model_call(SAY, {"response_format": "wav"}, model_id=model_id)
    response = ADAPTER.parse(call, answer(response_body, content_type=content_type))
    assert isinstance(response, ModelResponse)
    return response


def heard(body: Any) -> ModelResponse:
    response = ADAPTER.parse(model_call(HEAR), answer(body))
    assert isinstance(response, ModelResponse)
    return response


# --- speech ---


def test_speech_is_rendered_as_the_protocol_has_it() -> None:
    call = model_call(SAY, {"speed": 1.5}, model_id="tts-1", base_url="https://compatible.test/v1")
    assert ADAPTER.render(call).url == "https://compatible.test/v1/audio/speech"
    assert rendered(ADAPTER, call) == {"model": "tts-1", "input": "Hello", "voice": "alloy", "speed": 1.5}


def test_sound_is_read_and_its_characters_counted() -> None:
    response = spoken(b"\x00\xff", content_type="audio/mpeg")
    assert response.output == SpeechOutput(b"\x00\xff", "audio/mpeg")
    assert response.usage == Usage(characters=5)


def test_type_that_the_server_does_not_tell_is_the_one_asked_for() -> None:
    assert spoken(b"\x00", content_type="application/octet-stream").output == SpeechOutput(b"\x00", "audio/wav")


def test_model_billed_by_tokens_is_asked_for_events_which_tell_them() -> None:
    assert rendered(ADAPTER, model_call(SAY, model_id="gpt-4o-mini-tts"))["stream_format"] == "sse"
    body = events(
        {"type": "speech.audio.delta", "audio": base64.b64encode(b"ab").decode()},
        {"type": "speech.audio.delta", "audio": base64.b64encode(b"c").decode()},
        {"type": "speech.audio.done", "usage": {"input_tokens": 2, "output_tokens": 9, "total_tokens": 11}},
    )
    response = spoken(body, "gpt-4o-mini-tts", content_type="text/event-stream; charset=utf-8")
    assert response.output == SpeechOutput(b"abc", "audio/wav")
    assert response.usage == Usage(2, 9, characters=5)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (events({"type": "speech.audio.delta", "audio": "YQ=="}), ConnectionFailed),
        (events({"type": "speech.audio.delta", "audio": "!"}), InvalidResponse),
        (events({"type": "error", "error": {"message": "slow", "type": "rate_limit_error"}}), RateLimited),
        (b"data: {\n\n", InvalidResponse),
    ],
)
def test_events_that_break_are_errors(body: bytes, kind: type[ProviderError]) -> None:
    with pytest.raises(kind):
        spoken(body, content_type="text/event-stream")


@pytest.mark.parametrize(("body", "media_type"), [(b"", "audio/mpeg"), (b"{}", "application/json")])
def test_what_is_no_sound_is_an_invalid_response(body: bytes, media_type: str) -> None:
    with pytest.raises(InvalidResponse):
        spoken(body, content_type=media_type)


def test_speech_body_becomes_request_and_parameters_and_the_answer_is_the_sound() -> None:
    body = {"model": "m", "input": "Hello", "voice": "alloy", "response_format": "wav", "stream_format": "audio"}
    call = SPEECH.decode(json.dumps(body).encode(), {})
    assert (call.request, call.parameters) == (SAY, {"response_format": "wav"})
    response = ModelResponse(SpeechOutput(b"\x00", "audio/wav"))
    assert SPEECH.encode(call, response, Usage(characters=5), ANSWERED) == (b"\x00", "audio/wav")


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"input": ""}, "input"), ({"voice": {"id": "v"}}, "voice"), ({"stream_format": "sse"}, "stream_format")],
)
def test_refusal_of_speech_names_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SPEECH.decode(json.dumps({"model": "m", "input": "Hello", "voice": "alloy"} | changes).encode(), {})
    assert caught.value.field == field


# --- forms ---

names = st.text(st.characters(exclude_characters='\0\r\n"\\;', exclude_categories=["Cs"]), min_size=1, max_size=20)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)


@given(st.lists(st.tuples(names, texts), max_size=5), st.binary(max_size=300))
def test_form_is_read_as_it_was_written(fields: list[tuple[str, str]], content: bytes) -> None:
    body, content_type = encode_form(fields, "file", FormFile("a b.wav", "audio/wav", content))
    form = decode_form(body, content_type)
    assert form.fields == fields
    assert form.files == {"file": FormFile("a b.wav", "audio/wav", content)}


@given(
    st.binary(max_size=200),
    st.sampled_from(["", "text/plain", "multipart/form-data", "multipart/form-data; boundary=x"]),
)
def test_nothing_but_a_form_or_a_refusal_comes_of_any_bytes(body: bytes, content_type: str) -> None:
    with suppress(ValidationError):
        decode_form(b"--x\r\n" + body, content_type)


def test_cut_form_is_refused() -> None:
    body, content_type = encode_form([("model", "m")], "file", FormFile("a.wav", "audio/wav", b"abc"))
    with pytest.raises(ValidationError):
        decode_form(body[:-10], content_type)


# --- transcriptions ---


def fields_of(model_id: str, **parameters: Any) -> list[tuple[str, str]]:
    request = ADAPTER.render(model_call(HEAR, parameters, model_id=model_id))
    form = decode_form(request.body, request.headers["content-type"])
    assert form.files == {"file": FormFile("a b.wav", "audio/wav", HEAR.audio)}
    return form.fields


def test_transcription_is_rendered_as_a_form() -> None:
    call = model_call(HEAR, base_url="https://compatible.test/v1")
    assert ADAPTER.render(call).url == "https://compatible.test/v1/audio/transcriptions"
    assert fields_of("gpt-4o-transcribe", language="en", temperature=0.2) == [
        ("model", "gpt-4o-transcribe"),
        ("language", "en"),
        ("temperature", "0.2"),
        ("response_format", "json"),
    ]


def test_whisper_is_asked_for_the_duration_it_is_billed_by() -> None:
    assert ("response_format", "verbose_json") in fields_of("whisper-1")
    assert fields_of("other", timestamp_granularities=["word", "segment"])[1:] == [
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
        ("response_format", "verbose_json"),
    ]


@pytest.mark.parametrize("parameters", [{"response_format": "srt"}, {"include": ["logprobs"]}, {"stream": True}])
def test_what_cannot_be_expressed_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        ADAPTER.render(model_call(HEAR, parameters))


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        ({"usage": {"type": "duration", "seconds": 3}}, Usage(seconds=Decimal("3.00"))),
        ({"usage": {"type": "duration", "seconds": 3}, "duration": 2.2}, Usage(seconds=Decimal("3.00"))),
        ({"duration": "2.204999"}, Usage(seconds=Decimal("2.20"))),
        ({"usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 9}, "duration": 2}, Usage(14, 9)),
        ({}, None),
    ],
)
def test_transcription_is_billed_as_the_provider_says(body: dict[str, Any], usage: Usage | None) -> None:
    assert heard({"text": "Hello"} | body).usage == usage


def test_verbose_transcription_is_read_whole() -> None:
    body = {"text": "Hello", "language": "english", "duration": 1.25, "segments": [{"id": 0}], "words": [{"word": "a"}]}
    assert heard(body).output == TranscriptionOutput("Hello", "english", Decimal("1.25"), [{"id": 0}], [{"word": "a"}])


@pytest.mark.parametrize("body", [{}, {"text": 3}, {"text": "a", "duration": -1}, {"text": "a", "duration": "x"}, b"a"])
def test_wrong_transcription_is_an_invalid_response(body: Any) -> None:
    with pytest.raises(InvalidResponse):
        heard(body)


def decoded(*fields: tuple[str, str], file: FormFile | None = None) -> ClientCall:
    body, content_type = encode_form([("model", "m"), *fields], "file", file or FormFile("a.wav", "audio/wav", b"abc"))
    return TRANSCRIPTION.decode(body, {"content-type": content_type})


def test_form_becomes_request_and_parameters() -> None:
    call = decoded(
        ("language", "en"),
        ("temperature", "0.5"),
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
    )
    assert call.request == TranscriptionRequest(b"abc", "a.wav", "audio/wav")
    assert call.parameters == {
        "language": "en",
        "temperature": 0.5,
        "response_format": "verbose_json",
        "timestamp_granularities": ["word", "segment"],
    }


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ([("response_format", "srt")], "response_format"),
        ([("temperature", "warm")], "temperature"),
        ([("stream", "true")], "stream"),
        ([("language", "en"), ("language", "de")], "language"),
    ],
)
def test_refusal_of_a_transcription_names_the_field(fields: list[tuple[str, str]], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decoded(*fields)
    assert caught.value.field == field


def test_empty_file_is_refused() -> None:
    with pytest.raises(ValidationError, match="file"):
        decoded(file=FormFile("a.wav", "audio/wav", b""))


def test_transcription_is_what_the_sdk_reads() -> None:
    segment = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": 1.0,
        "text": "Hello",
        "tokens": [1],
        "temperature": 0.0,
        "avg_logprob": -0.1,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.0,
    }
    output = TranscriptionOutput("Hello", "english", Decimal("1.25"), [segment])
    by_time, by_tokens = Usage(seconds=Decimal("1.25")), Usage(14, 9)

    body, _ = TRANSCRIPTION.encode(decoded(), ModelResponse(output), by_tokens, ANSWERED)
    plain = Transcription.model_validate_json(body)
    assert plain.usage is not None
    assert (plain.text, plain.usage.type) == ("Hello", "tokens")

    call = decoded(("response_format", "verbose_json"))
    verbose = TranscriptionVerbose.model_validate_json(
        TRANSCRIPTION.encode(call, ModelResponse(output), by_time, ANSWERED)[0]
    )
    assert (verbose.duration, verbose.language) == (1.25, "english")
    assert verbose.usage is not None
    assert verbose.usage.seconds == 1.25

    call = decoded(("response_format", "text"))
    assert TRANSCRIPTION.encode(call, ModelResponse(output), by_time, ANSWERED) == (
        b"Hello\n",
        "text/plain; charset=utf-8",
    )


@given(json_values | st.fixed_dictionaries({"text": st.just("a"), "usage": json_values, "duration": json_values}))
def test_nothing_but_a_response_or_a_provider_error_comes_of_any_answer(body: Any) -> None:
    with suppress(ProviderError):
        heard(body)
