"""Every refusal and failure is an error of its own class, which says what is wrong with what."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tollgate
from app import errors as server_errors
from tests.gateway_server import GatewayServer, told
from tests.tollgate_process import free_port
from tollgate import Service, errors
from tollgate.steps import Reply, gateway_error

CHAT = "oai:chat-1"


def test_every_error_of_the_server_has_a_class_of_its_name_and_code() -> None:
    def found(module: object) -> dict[str, str]:
        return {
            name: kind.code
            for name, kind in inspect.getmembers(module, inspect.isclass)
            if hasattr(kind, "code") and name not in ("DatabaseError", "MigrationError")
        }

    own = {"ServerUnreachable", "StillWaiting", "LimitExceeded"}
    assert {name: code for name, code in found(errors).items() if name not in own} == found(server_errors)


def test_an_unknown_model_is_not_found(service: Service) -> None:
    for call in (
        lambda: service("oai:none", "Hello"),
        lambda: next(service.stream("oai:none", "Hello")),
        lambda: service.submit("oai:none", "Hello"),
        lambda: service.get_model("oai:none"),
        lambda: asyncio.run(service.invoke_model_async("oai:none", "Hello")),
    ):
        with pytest.raises(tollgate.NotFound, match="oai:none") as caught:
            call()
        assert (caught.value.code, caught.value.field) == ("NOT_FOUND", caught.value.path[-1])


def test_a_value_out_of_bounds_names_its_field(service: Service) -> None:
    with pytest.raises(tollgate.ValidationError, match="between 0 and 2, not 9") as caught:
        service(CHAT, "Hello", temperature=9)
    assert caught.value.path[-1] == "temperature"
    with pytest.raises(tollgate.ValidationError) as caught:
        service(CHAT, [{"role": "nobody", "content": "Hello"}])
    assert caught.value.field is not None
    assert caught.value.field.startswith("messages")
    with pytest.raises(tollgate.ValidationError, match="call stream"):
        service(CHAT, "Hello", stream=True)


def test_a_deprecated_model_names_its_alternatives(service: Service, admin: Service) -> None:
    admin.register_model("oai:old-1")
    service.submit("oai:old-1", "Hello")
    assert admin.unregister_model("oai:old-1") is False
    for call in (lambda: service("oai:old-1", "Hello"), lambda: service.submit("oai:old-1", "Hello")):
        with pytest.raises(tollgate.ModelUnavailable, match="deprecated") as caught:
            call()
        assert CHAT in caught.value.alternatives


def test_a_token_that_is_unknown_or_not_allowed_is_told_apart(server: GatewayServer) -> None:
    with Service(server.url, "tg_not-a-token") as stranger:
        with pytest.raises(tollgate.Unauthenticated):
            stranger(CHAT, "Hello")
        with pytest.raises(tollgate.Unauthenticated):
            stranger.list_models()
    with Service(server.url, server.reader_token) as reader:
        assert CHAT in reader.list_models()
        for call in (lambda: reader(CHAT, "Hello"), lambda: reader.submit(CHAT, "Hello")):
            with pytest.raises(tollgate.Forbidden):
                call()


def test_a_call_that_gets_no_permit_in_time_says_when_to_come_back(service: Service) -> None:
    with service.stream("narrow:chat-1", told(fault="hang_midway", reply="A reply of several words.")) as first:
        next(first)
        with pytest.raises(tollgate.RateLimited, match="no permit") as caught:
            service("narrow:chat-1", "Hello", wait_seconds=0.1)
    assert caught.value.retry_after_seconds
    assert caught.value.request_id
    assert caught.value.http_status == 429


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        ({"error": 400}, errors.InvalidRequest),
        ({"error": 401}, errors.AuthenticationFailed),
        ({"error": 403}, errors.PermissionDenied),
        ({"error": 404}, errors.ModelNotFound),
        ({"error": 413}, errors.PayloadTooLarge),
    ],
)
def test_a_failure_of_the_provider_is_one_of_its_classes(
    service: Service, behaviour: dict[str, Any], kind: type[tollgate.ProviderError]
) -> None:
    with pytest.raises(tollgate.ProviderError) as caught:
        service(CHAT, told(**behaviour))
    assert type(caught.value) is kind
    request_id = caught.value.request_id
    assert request_id is not None
    request = service.get_request(request_id)
    assert request.status == "FAILED"
    with pytest.raises(kind):
        request.raise_for_error()


def test_a_server_that_does_not_answer_is_unreachable() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Service(url, "token-of-nobody") as service:
        with pytest.raises(tollgate.ServerUnreachable, match=url) as caught:
            service(CHAT, "Hello")
        with pytest.raises(tollgate.ServerUnreachable):
            next(service.stream(CHAT, "Hello"))
        with pytest.raises(tollgate.ServerUnreachable):
            asyncio.run(service.invoke_model_async(CHAT, "Hello"))
        assert "token-of-nobody" not in f"{caught.value!r} {service!r}"


@pytest.mark.parametrize(
    ("reply", "kind", "code"),
    [
        (Reply(502, {}, b"<html>Bad gateway</html>"), tollgate.ServerUnreachable, "SERVER_UNREACHABLE"),
        (Reply(429, {"retry-after": "7"}, b"{}"), tollgate.RateLimited, "RATE_LIMITED"),
        (Reply(500, {}, b'{"error": {"message": "m", "code": "newer_than_this"}}'), None, "NEWER_THAN_THIS"),
    ],
)
def test_an_answer_of_something_else_is_still_an_error_of_the_package(
    reply: Reply, kind: type[tollgate.TollgateError] | None, code: str
) -> None:
    error = gateway_error(reply)
    assert type(error) is (kind or tollgate.TollgateError)
    assert error.code == code
    assert error.http_status == reply.status


def test_importing_the_package_imports_nothing_of_the_application() -> None:
    program = "import sys, tollgate; print([name for name in sys.modules if name.split('.')[0] in ('app', 'workers')])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


PROGRAM = """
import asyncio
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import tollgate

service: tollgate.Service = tollgate.init(url="http://127.0.0.1:8000", token="t")
answer = service("openai:gpt-4o", "Hello", temperature=0.5)
text: str = answer.data
cost: Decimal | None = answer.cost
tokens: int = answer.usage.input_tokens + answer.usage.total_tokens
for chunk in service.stream("openai:gpt-4o", [{"role": "user", "content": "Hello"}]):
    piece: str = chunk.data
model: tollgate.Model = service.get_model("openai:gpt-4o")
window: int | None = model.info.context_window
text = model("Hello").data
requests: list[tollgate.Request] = service.wait_many(service.submit_many("openai:gpt-4o", ["a", "b"]))
summary = service.get_usage_summary("openai:gpt-4o", since=datetime.now(timezone.utc) - timedelta(days=1))
total: Decimal = summary.cost


async def main() -> str:
    async with service.stream_async("openai:gpt-4o", "Hello") as stream:
        parts = [chunk.data async for chunk in stream]
    return (await service.invoke_model_async("openai:gpt-4o", "Hello")).data + "".join(parts)


text = asyncio.run(main())
try:
    service("openai:gpt-4o", "Hello")
except tollgate.ModelUnavailable as error:
    others: tuple[str, ...] = error.alternatives
except tollgate.RateLimited as error:
    seconds: float | None = error.retry_after_seconds
"""


def test_a_program_is_checked_by_a_strict_type_checker(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "wrong.py").write_text(PROGRAM + "wrong: int = answer.data\nservice.invoke_model(1, 2)\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", str(tmp_path / "cache")]
    package = Path(tollgate.__file__).parent
    assert (package / "py.typed").exists()
    # Type checkers do not see where an editable installation lies.
    environment = {**os.environ, "MYPYPATH": str(package.parent)}
    right = subprocess.run([*command, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert right.returncode == 0, right.stdout + right.stderr
    wrong = subprocess.run([*command, "wrong.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert wrong.stdout.count("error:") == 3, wrong.stdout + wrong.stderr
