"""Which server `tollgate.init()` means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import tollgate
from tests.gateway_server import GatewayServer
from tests.tollgate_process import free_port

CHAT = "oai:chat-1"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("TOLLGATE_URL", "TOLLGATE_TOKEN", "TOLLGATE_DATA_DIR", "TOLLGATE_HOST", "TOLLGATE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOLLGATE_PORT", str(free_port()))
    yield
    assert list(tmp_path.iterdir()) == [], "something was started"


def test_a_url_and_a_token_are_taken_as_they_are(server: GatewayServer) -> None:
    with tollgate.init(url=server.url + "/", token=server.token) as service:
        assert service.url == server.url
        assert service(CHAT, "Hello").data


def test_the_environment_names_the_server(server: GatewayServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_URL", server.url)
    with pytest.raises(tollgate.ConfigurationError, match="TOLLGATE_TOKEN") as caught:
        tollgate.init()
    assert caught.value.field == "token"
    monkeypatch.setenv("TOLLGATE_TOKEN", server.token)
    with tollgate.init() as service:
        assert service(CHAT, "Hello").data


def test_a_server_that_runs_here_is_found_by_its_data_directory(
    server: GatewayServer, server_data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLLGATE_PORT", str(urlsplit(server.url).port))
    with tollgate.init(data_dir=server_data_dir) as service:
        assert service.url == server.url
    monkeypatch.setenv("TOLLGATE_DATA_DIR", str(server_data_dir))
    monkeypatch.setenv("TOLLGATE_HOST", "0.0.0.0")
    with tollgate.init(embedded=False) as service:
        assert CHAT in service.list_models()


def test_a_server_with_other_data_is_not_taken_for_ours(
    server: GatewayServer, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("TOLLGATE_PORT", str(urlsplit(server.url).port))
    other = tmp_path_factory.mktemp("other")
    (other / "admin-token").write_text("tg_of-another-database")
    for data_dir in (other, None):
        with pytest.raises(tollgate.ConfigurationError, match="tollgate run"):
            tollgate.init(embedded=False, data_dir=data_dir)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://user:secret@127.0.0.1:8000", "http://"])
def test_a_url_of_another_form_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(tollgate.ConfigurationError, match="http://host:port") as caught:
        tollgate.init(url=url, token="t")
    assert "secret" not in str(caught.value)


def test_a_url_cannot_be_embedded() -> None:
    with pytest.raises(tollgate.ConfigurationError):
        tollgate.init(url="http://127.0.0.1:8000", embedded=True)
    with pytest.raises(tollgate.ConfigurationError):
        tollgate.init(url="http://127.0.0.1:8000", demo=True)
    with pytest.raises(tollgate.ConfigurationError):
        tollgate.init(embedded=False, demo=True)
