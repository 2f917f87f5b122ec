"""Asking providers for their own lists of models."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from app.catalog.records import LlmModelStatus, LlmModelType
from app.configuration.discovery import MODEL_LISTS, ListedModel, guess_type, propose, write_proposal
from app.configuration.files import load
from app.configuration.listing import list_models
from app.db.pool import Database
from app.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectionFailed,
    InvalidResponse,
    PermissionDenied,
    ProviderUnavailable,
)
from app.providers.registry import ADAPTERS
from tests.app.catalog.make import model
from tests.app.configuration.conftest import Runs, fetch
from tests.emulator import Emulator

KEY = SecretStr("sk-test")
Answers = Callable[[str, Mapping[str, str], Mapping[str, str]], tuple[int, Any]]


class Provider:
    """A provider that answers what a test says. `asked`: paths, queries and headers."""

    def __init__(self, answer: Answers) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the name that http.server calls
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                outer.asked.append((parts.path, query))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, body = answer(parts.path, query, headers)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def provider() -> Iterator[Callable[[Answers], Provider]]:
    started: list[Provider] = []

    def start(answer: Answers) -> Provider:
        started.append(Provider(answer))
        return started[-1]

    yield start
    for server in started:
        server.close()


Starts = Callable[[Answers], Provider]
PAGES = {"": (["a", "b"], "b"), "b": (["c", "d"], "d"), "d": (["e"], None)}


async def test_anthropics_pages_are_followed(provider: Starts) -> None:
    def answer(path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, Any]:
        assert headers["x-api-key"] == "sk-test"
        assert headers["anthropic-version"]
        ids, last = PAGES[query.get("after_id", "")]
        data = [{"type": "model", "id": id, "display_name": id.upper(), "created_at": "x"} for id in ids]
        return 200, {"data": data, "has_more": last is not None, "first_id": ids[0], "last_id": ids[-1]}

    for suffix in ("", "/v1", "/v1/"):
        server = provider(answer)
        listed = await list_models("anthropic", server.url + suffix, KEY)
        assert [(item.model_id, item.display_name) for item in listed] == [(id, id.upper()) for id in "abcde"]
        assert [path for path, _ in server.asked] == ["/v1/models"] * 3


async def test_googles_pages_are_followed(provider: Starts) -> None:
    def answer(path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, Any]:
        assert headers["x-goog-api-key"] == "sk-test"
        assert "key" not in query
        ids, token = PAGES[query.get("pageToken", "")]
        models = [{"name": f"models/{id}", "displayName": id.upper(), "inputTokenLimit": 10} for id in ids]
        return 200, {"models": models, **({"nextPageToken": token} if token else {})}

    for suffix in ("", "/v1beta"):
        server = provider(answer)
        listed = await list_models("google", server.url + suffix, KEY)
        assert [(item.model_id, item.context_window) for item in listed] == [(id, 10) for id in "abcde"]
        assert [path for path, _ in server.asked] == ["/v1beta/models"] * 3


async def test_coheres_pages_are_followed(provider: Starts) -> None:
    def answer(path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, Any]:
        assert headers["authorization"] == "Bearer sk-test"
        ids, token = PAGES[query.get("page_token", "")]
        models = [{"name": id, "endpoints": ["chat"], "context_length": 10} for id in ids]
        return 200, {"models": models, "next_page_token": token}

    for suffix in ("", "/v2"):
        server = provider(answer)
        listed = await list_models("cohere", server.url + suffix, KEY)
        assert [(item.model_id, item.context_window) for item in listed] == [(id, 10) for id in "abcde"]
        assert [path for path, _ in server.asked] == ["/v1/models"] * 3


def test_every_protocol_has_its_list() -> None:
    assert set(MODEL_LISTS) == set(ADAPTERS)


async def test_pages_that_go_round_in_a_circle_end(provider: Starts) -> None:
    server = provider(lambda *_: (200, {"models": [], "nextPageToken": "again"}))
    with pytest.raises(InvalidResponse, match="circle"):
        await list_models("google", server.url, KEY)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, {"error": {"message": "bad key"}}, AuthenticationFailed),
        (403, {"error": "no"}, PermissionDenied),
        (500, b"<html>", ProviderUnavailable),
        (301, b"", InvalidResponse),
        (200, b"<html>", InvalidResponse),
        (200, [], InvalidResponse),
        (200, {"data": None}, InvalidResponse),
        (200, {"data": [{"object": "model"}]}, InvalidResponse),
    ],
)
async def test_an_answer_that_is_no_list_is_an_error(
    provider: Starts, status: int, body: Any, error: type[Exception]
) -> None:
    server = provider(lambda *_: (status, body))
    with pytest.raises(error) as refused:
        await list_models("openai", server.url + "/v1", KEY)
    assert "sk-test" not in str(refused.value)


async def test_a_provider_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConnectionFailed):
        await list_models("openai", "http://127.0.0.1:1/v1", KEY)
    with pytest.raises(ConfigurationError, match="smtp"):
        await list_models("smtp", "http://127.0.0.1:1/v1", KEY)


async def test_what_the_catalog_cannot_hold_is_left_out(provider: Starts) -> None:
    items = [
        {"id": "ok", "context_length": 128_000, "max_completion_tokens": 0, "description": " x "},
        {"id": "has space"},
        {"id": "x" * 300},
        {"id": "long", "display_name": "x" * 300, "context_window": "many"},
    ]
    server = provider(lambda *_: (200, {"data": items}))
    assert await list_models("openai", server.url, KEY) == [
        ListedModel("ok", "ok", "x", LlmModelType.TEXT, 128_000, None),
        ListedModel("long", "long", None, LlmModelType.TEXT, None, None),
    ]


@pytest.mark.parametrize(
    ("model_id", "kind"),
    [
        ("gpt-4o", LlmModelType.TEXT),
        ("text-embedding-3-small", LlmModelType.EMBEDDING),
        ("rerank-v3.5", LlmModelType.RERANK),
        ("omni-moderation-latest", LlmModelType.MODERATION),
        ("gpt-4o-mini-transcribe", LlmModelType.SPEECH_TO_TEXT),
        ("tts-1-hd", LlmModelType.TEXT_TO_SPEECH),
        ("sora-2", LlmModelType.VIDEO),
        ("gpt-image-1", LlmModelType.IMAGE),
        ("codestral-latest", LlmModelType.CODE),
    ],
)
def test_the_type_is_guessed_from_the_name(model_id: str, kind: LlmModelType) -> None:
    assert guess_type(model_id) is kind


def test_what_is_new_and_what_is_gone_is_proposed() -> None:
    present = [
        model("acme", "kept"),
        model("acme", "gone"),
        model("acme", "retired", status=LlmModelStatus.DEPRECATED),
    ]
    listed = [ListedModel(id, id, None, LlmModelType.TEXT, None, None) for id in ("new", "kept", "new")]
    proposal = propose(listed, present)
    assert [item.model_id for item in proposal.new] == ["new"]
    assert [row.model_id for row in proposal.gone] == ["gone"]


def test_a_proposal_is_a_file_that_can_be_read(tmp_path: Path) -> None:
    listed = [ListedModel("${odd}", "it's: ${odd}", "a\nb", LlmModelType.TEXT, 5, None)]
    file = tmp_path / "new.yaml"
    file.write_text(write_proposal("acme", propose(listed, [model("acme", "o'ld")])))
    document = load(file, {})
    assert document.providers is not None
    models = document.providers["acme"].models
    assert models is not None
    assert {column: given.value for column, given in models["${odd}"].values.items()} == {
        "display_name": "it's: ${odd}",
        "description": "a\nb",
        "model_type": LlmModelType.TEXT,
        "context_window": 5,
    }
    # What is gone is a comment, in its place.
    for proposal in (listed, []):
        file.write_text(write_proposal("acme", propose(proposal, [model("acme", "o'ld")])).replace("# - {", "- {"))
        again = load(file, {}).providers
        assert again is not None
        assert again["acme"].models is not None
        assert set(again["acme"].models) == {"o'ld", *(item.model_id for item in proposal)}


@pytest.mark.parametrize("adapter", ["openai", "anthropic", "google"])
async def test_the_emulators_models_are_proposed_and_can_be_applied(
    adapter: str, tollgate: Runs, database: Database, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.configure("acme", models=["chat-1", "chat-2", "text-embedding-1"])
    base_url = emulator.url("acme") if adapter == "openai" else emulator.url("acme").removesuffix("/v1")
    (tmp_path / "tollgate.yaml").write_text(
        f"providers: [{{name: acme, displayName: Acme, adapter: {adapter}, baseUrl: '{base_url}', "
        "models: [{modelId: chat-1, displayName: One}, {modelId: chat-0, displayName: Zero}]}]"
    )
    assert (await tollgate("apply")).code == 0
    environment = {"ACME_API_KEY": "sk-acme"}
    ended = await tollgate("discover", "acme", "--write", "new.yaml", environment=environment)
    assert ended.code == 0, ended.errors
    assert "acme: 2 new, 1 of the catalog's not listed" in ended.errors
    assert "modelId: 'chat-0', status: DEPRECATED" in (tmp_path / "new.yaml").read_text()
    assert await fetch(database, "SELECT count(*) FROM llm_models") == [(2,)]
    again = await tollgate("discover", "acme", "--write", "new.yaml", environment=environment)
    assert (again.code, "is there already" in again.errors) == (2, True)
    applied = await tollgate("apply", "-f", "new.yaml")
    assert (applied.code, applied.output.splitlines()[-1]) == (0, "Applied: 2 added, 0 changed, 0 removed.")
    rows = await fetch(database, "SELECT model_id, model_type::text FROM llm_models ORDER BY 1")
    assert rows[2:] == [("chat-2", "TEXT"), ("text-embedding-1", "EMBEDDING")]


async def test_without_a_key_the_variable_is_named(tollgate: Runs, tmp_path: Path) -> None:
    (tmp_path / "tollgate.yaml").write_text(
        "providers: [{name: acme, displayName: Acme, baseUrl: 'http://127.0.0.1:1'}, {name: bare, displayName: B}]"
    )
    await tollgate("apply")
    for name, reason in (("acme", "ACME_API_KEY"), ("bare", "no base URL"), ("nobody", "no LlmProvider 'nobody'")):
        ended = await tollgate("discover", name)
        assert ended.code == 2
        assert reason in ended.errors
