"""The emulator's OpenAI protocol, as httpx and the official client see it."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import typer
from openai.types.chat import ChatCompletionMessageParam
from typer.testing import CliRunner

from app.providers.emulator.command import emulate
from tests.emulator import Emulator, emulator_process

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello, world!"}]


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="any", base_url=emulator.url(), max_retries=0) as client:
        yield client


def messages(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


async def test_a_completion_is_what_the_official_client_expects(client: openai.AsyncOpenAI) -> None:
    response = await client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
    completion = response.parse()
    assert completion.id.startswith("chatcmpl-")
    assert completion.object == "chat.completion"
    assert completion.model == "gpt-4o"
    assert completion.created > 1_700_000_000
    assert completion.choices[0].message.role == "assistant"
    assert completion.choices[0].message.content == "Hello from the emulator."
    assert completion.choices[0].finish_reason == "stop"
    assert response.headers["x-request-id"].startswith("req_")
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3, 6)
    assert completion.usage.total_tokens == 9


async def test_token_counts_are_as_configured(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.configure(input_tokens=1000, output_tokens=50, cached_tokens=600, reasoning_tokens=20)
    usage = (await client.chat.completions.create(model="m", messages=HELLO)).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.completion_tokens_details is not None
    assert (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens) == (1000, 600)
    assert (usage.completion_tokens, usage.completion_tokens_details.reasoning_tokens) == (50, 20)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_the_maximum_of_output_tokens_is_kept(emulator: Emulator, name: str) -> None:
    emulator.configure(output_tokens=50)
    body = {"model": "m", "messages": HELLO, name: 7}
    answer = (await post(emulator, body)).json()
    assert answer["usage"]["completion_tokens"] == 7
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["choices"][0]["message"]["content"].split() == ["word"] * 7


async def test_a_reply_is_cut_where_the_maximum_is_reached(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.configure(reply="abcdefghijkl")
    completion = await client.chat.completions.create(model="m", messages=HELLO, max_tokens=2)
    assert completion.choices[0].message.content == "abcdefgh"


async def test_a_stream_gives_the_same_text_and_usage(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.configure(reply="Grüße, \u2603 and more text to send.", chunk_ms=1)
    stream = await client.chat.completions.create(
        model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Grüße, \u2603 and more text to send."
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 3
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_has_no_usage_unless_asked_and_ends_with_done(emulator: Emulator) -> None:
    response = await post(emulator, {"model": "m", "messages": HELLO, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "usage" not in response.text
    assert response.text.endswith("\n\ndata: [DONE]\n\n")


async def test_several_choices_are_all_billed(client: openai.AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model="m", messages=HELLO, n=3)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 18


async def test_missing_usage(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.configure(missing_usage=True)
    assert (await client.chat.completions.create(model="m", messages=HELLO)).usage is None
    assert emulator.record()["calls"][0]["input_tokens"] == 3


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (408, openai.APIStatusError),
        (409, openai.ConflictError),
        (413, openai.APIStatusError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (502, openai.InternalServerError),
        (503, openai.InternalServerError),
        (529, openai.InternalServerError),
    ],
)
async def test_errors_are_the_official_clients_errors(
    client: openai.AsyncOpenAI, status: int, expected: type[openai.APIStatusError]
) -> None:
    text = f'please [[emulate {{"error": {status}, "retry_after": 0.25, "error_message": "as told"}}]] thank you'
    with pytest.raises(expected) as raised:
        await client.chat.completions.create(model="m", messages=messages(text))
    assert raised.value.status_code == status
    assert raised.value.body == {
        "message": "as told",
        "type": raised.value.type,
        "param": None,
        "code": raised.value.code,
    }
    assert raised.value.type
    assert raised.value.response.headers["retry-after"] == "0.25"
    assert raised.value.request_id


async def test_retry_after_is_sent_as_written_when_it_is_a_text(emulator: Emulator) -> None:
    emulator.configure(error=429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT")
    response = await post(emulator)
    assert response.headers["retry-after"] == "Wed, 21 Oct 2026 07:28:00 GMT"


async def test_a_directive_may_come_by_header_metadata_or_text(emulator: Emulator) -> None:
    by_header = await post(emulator, headers={"x-emulate": '{"error": 500}'})
    by_metadata = await post(emulator, {"model": "m", "messages": HELLO, "metadata": {"emulate": {"error": 502}}})
    by_printed = await post(emulator, {"model": "m", "messages": HELLO, "metadata": {"emulate": '{"error": 503}'}})
    parts = [{"type": "text", "text": 'x [[emulate {"latency_ms": [0, 1], "error": 529}]]'}]
    by_text = await post(emulator, {"model": "m", "messages": [{"role": "user", "content": parts}]})
    statuses = [response.status_code for response in (by_header, by_metadata, by_printed, by_text)]
    assert statuses == [500, 502, 503, 529]


@pytest.mark.parametrize("directive", ["{", "[]", '{"no_such": 1}', '{"error": 200}', '{"latency_ms": [5, 1]}'])
async def test_a_directive_that_is_not_valid_is_refused(emulator: Emulator, directive: str) -> None:
    response = await post(emulator, headers={"x-emulate": directive})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_directive"


async def test_only_the_first_errors_of_a_key_then_success(emulator: Emulator) -> None:
    emulator.configure(error=503, errors_first=2, errors_first_per="key")
    keys = ["a", "a", "b", "a", "b", "b"]
    statuses = [(await post(emulator, headers={"idempotency-key": key})).status_code for key in keys]
    assert statuses == [503, 503, 503, 200, 503, 200]
    assert [call["key"] for call in emulator.record()["calls"]] == keys


async def test_only_the_first_errors_of_a_provider(emulator: Emulator) -> None:
    emulator.configure(errors_first=2)
    assert [(await post(emulator)).status_code for _ in range(4)] == [500, 500, 200, 200]


async def test_the_same_seed_gives_the_same_answers() -> None:
    runs = []
    for _ in range(2):
        with emulator_process("--seed", "7", "--error-rate", "0.5", "--output-tokens", "1,500") as url:
            view = Emulator(url, "")
            answers = [await post(view, provider=name) for name in ["openai"] * 20 + ["deepseek"] * 20]
            runs.append([(answer.status_code, answer.json().get("usage")) for answer in answers])
    assert runs[0] == runs[1]
    assert runs[0][:20] != runs[0][20:]
    assert {status for status, _ in runs[0]} == {200, 500}


async def test_a_credential_is_needed_and_the_configured_one_if_there_is_one(emulator: Emulator) -> None:
    assert (await post(emulator, headers={"authorization": ""})).status_code == 401
    settings = emulator.configure(api_key="sk-right")
    assert "sk-right" not in json.dumps(settings)
    wrong = await post(emulator)
    assert wrong.status_code == 401
    assert wrong.json()["error"]["code"] == "invalid_api_key"
    assert (await post(emulator, headers={"authorization": "Bearer sk-right"})).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        ({"messages": HELLO}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": ["hi"]}, "messages[0].role"),
        ({"model": "m", "messages": HELLO, "max_tokens": 0}, "max_tokens"),
        ({"model": "m", "messages": HELLO, "n": "2"}, "n"),
    ],
)
async def test_a_bad_request_names_the_parameter(emulator: Emulator, body: Any, param: str | None) -> None:
    response = await post(emulator, body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert response.json()["error"]["param"] == param
    assert emulator.record()["outcomes"] == {"refused": 1}


async def test_models_are_listed_and_others_unknown(emulator: Emulator, client: openai.AsyncOpenAI) -> None:
    emulator.configure(models=["gpt-4o", "gpt-4o-mini"])
    assert [model.id async for model in client.models.list()] == ["gpt-4o", "gpt-4o-mini"]
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="gpt-5", messages=HELLO)


async def test_providers_on_one_server_do_not_share_settings_or_records(emulator: Emulator) -> None:
    emulator.configure("openai", reply="I am openai", max_parallel=3)
    emulator.configure("deepseek", reply="I am deepseek")
    for name in ("openai", "deepseek", "openai"):
        answer = (await post(emulator, provider=name)).json()
        assert answer["choices"][0]["message"]["content"] == f"I am {name}"
    assert emulator.record("openai")["arrivals"] == 2
    assert emulator.record("deepseek")["arrivals"] == 1


def test_a_path_without_prefix_is_the_default_provider(emulator_url: str) -> None:
    before = httpx.get(f"{emulator_url}/_emulator/record?provider=default").json()["arrivals"]
    headers = {"authorization": "Bearer any"}
    for path in ("/v1/chat/completions", "/chat/completions"):
        body = {"model": "m", "messages": HELLO}
        assert httpx.post(emulator_url + path, json=body, headers=headers).status_code == 200
    assert httpx.get(f"{emulator_url}/_emulator/record?provider=default").json()["arrivals"] == before + 2


def test_an_unknown_path_is_not_found(emulator_url: str) -> None:
    response = httpx.post(f"{emulator_url}/openai/v1/nothing", json={})
    assert response.status_code == 404
    assert "POST /openai/v1/nothing" in response.json()["error"]["message"]


def test_settings_merge_null_sets_back_and_bad_ones_change_nothing(emulator: Emulator) -> None:
    emulator.configure(latency_ms=[1, 2], reply="x")
    assert emulator.configure(reply=None)["latency_ms"] == [1, 2]
    control = f"{emulator.base_url}/_emulator/providers/{emulator.name()}"
    refused = httpx.put(control, json={"latency_ms": 7, "max_parallel": 0})
    assert refused.status_code == 422
    assert refused.json()["problems"][0]["field"] == "max_parallel"
    assert httpx.put(control, content=b"{").status_code == 422
    settings = httpx.get(control).json()
    assert (settings["latency_ms"], settings["reply"], settings["max_parallel"]) == ([1, 2], None, None)


async def test_the_record_is_bounded_but_its_counts_are_not(emulator: Emulator) -> None:
    with emulator_process("--record-calls", "3", "--provider", 'openai={"reply": "set"}') as url:
        view = Emulator(url, "")
        for number in range(5):
            answer = await post(view, headers={"x-request-id": f"call-{number}"}, provider="openai")
            assert answer.json()["choices"][0]["message"]["content"] == "set"
        record = view.record("openai")
    assert record["arrivals"] == 5
    assert record["served"] == {"200": 5}
    assert [call["key"] for call in record["calls"]] == ["call-2", "call-3", "call-4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-parallel", "0"], "max_parallel: Input should be greater than or equal to 1"),
        (["--latency-ms", "fast"], "--latency-ms must be a number or FROM,TO, not 'fast'"),
        (["--provider", "openai"], "--provider must be NAME=JSON"),
        (["--fault", "explode"], "fault: Input should be"),
    ],
)
def test_an_option_that_is_not_valid_is_explained(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(_cli(), arguments, env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 2
    assert message in result.output


def test_a_taken_port_is_explained() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments = ["--port", str(taken.getsockname()[1])]
        result = CliRunner().invoke(_cli(), arguments, env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 2
    assert "Address already in use" in result.output


async def test_a_reset_forgets_the_calls(emulator: Emulator) -> None:
    await post(emulator)
    call = emulator.record()["calls"][0]
    assert 0 <= call["ended"] - call["arrived"] < 5
    emulator.reset()
    record = emulator.record()
    assert (record["arrivals"], record["calls"], record["served"]) == (0, [], {})


def _cli() -> typer.Typer:
    application = typer.Typer()
    application.command()(emulate)
    return application


async def post(
    emulator: Emulator,
    body: Any = None,
    *,
    headers: dict[str, str] | None = None,
    provider: str = "default",
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body or {"model": "m", "messages": HELLO}).encode()
    async with httpx.AsyncClient(timeout=10) as http:
        return await http.post(
            f"{emulator.url(provider)}/chat/completions",
            content=content,
            headers={"authorization": "Bearer any", **(headers or {})},
        )
