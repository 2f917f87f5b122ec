"""The `tollgate` command as its users meet it: help, mistakes, start, Ctrl-C, `kill -9`, root and ordinary users."""

from __future__ import annotations

import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.core import TyperGroup
from websockets.sync.client import connect

from app import cli
from tests.tollgate_process import READY, TollgateProcess, free_port, processes_of, run_command, tollgate

SEARCH_PATH = os.pathsep.join((str(Path(__file__).parents[2]), sysconfig.get_path("purelib")))
TOKEN = "admin-token-of-the-tests"
SUBMIT = """
mutation ($content: String!) {
  submitRequest(input: {model: "openai:gpt-4o-mini", messages: [{role: USER, content: $content}]}) {
    ... on ModelRequest { id }
  }
}
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Not there yet, in a directory that any user may enter: as root the database runs as another one."""
    directory = Path(tempfile.mkdtemp(prefix="tollgate-cli-"))
    directory.chmod(0o755)
    yield directory / "data"
    shutil.rmtree(directory)


class Client:
    """Of the API that a `tollgate run` serves."""

    def __init__(self, process: TollgateProcess) -> None:
        output = process.wait_for(READY).output
        self.url = output.split(READY, 1)[1].split()[0]
        self._headers = {"authorization": f"Bearer {TOKEN}"}

    def ask(self, query: str, **variables: Any) -> Any:
        response = httpx.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, headers=self._headers, timeout=30
        )
        body = response.json()
        assert "errors" not in body, body
        return body["data"]

    def submit(self, content: str) -> str:
        return str(self.ask(SUBMIT, content=content)["submitRequest"]["id"])

    @contextmanager
    def stream(self, content: str) -> Iterator[httpx.Response]:
        """An answer of the gateway, when it has begun."""
        body = {"model": "openai:gpt-4o-mini", "messages": [{"role": "user", "content": content}], "stream": True}
        url = f"{self.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=self._headers, timeout=30) as response:
            assert response.status_code == 200
            yield response

    def wait_for(self, request_id: str, *statuses: str) -> str:
        """Follows the request by subscription until it is in one of these."""
        query = "subscription ($id: ID!) { requestUpdated(id: $id) { status } }"
        with connect(
            self.url.replace("http", "ws", 1) + "/graphql",
            subprotocols=["graphql-transport-ws"],  # type: ignore[list-item] # a NewType of str
            additional_headers=self._headers,
        ) as socket:
            socket.send('{"type": "connection_init"}')
            payload = {"query": query, "variables": {"id": request_id}}
            socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
            status = "nothing"
            while status not in statuses:
                message = json.loads(socket.recv(timeout=60))
                assert message["type"] in ("connection_ack", "next"), (status, message)
                if message["type"] == "next":
                    status = message["payload"]["data"]["requestUpdated"]["status"]
        return status


def commands() -> Iterator[tuple[str, Any]]:
    cli._mount_commands()
    group = typer.main.get_command(cli.app)
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        yield name, command
        if isinstance(command, TyperGroup):
            yield from ((f"{name} {inner}", command.commands[inner]) for inner in command.commands)


COMMANDS = dict(commands())


def test_no_command_is_missing() -> None:
    assert set(COMMANDS) >= {
        *("run", "serve", "work", "migrate", "seed", "emulate", "prune"),
        *("token", "token create", "token list", "token revoke"),
        *("limits", "limits export", "limits check"),
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_says_more_than_its_name(name: str) -> None:
    command = COMMANDS[name]
    help = command.help or ""
    assert len(help.split("\n\n")) >= 2, f"`{name}` has one paragraph of help only"
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"`{name}` does not explain {parameter.name}"


@pytest.mark.parametrize("arguments", [(), ("run",), ("work",), ("token", "create")])
def test_help_is_shown_without_any_service(arguments: tuple[str, ...], data_dir: Path) -> None:
    shown = run_command(*arguments, "--help", data_dir=data_dir, DATABASE_URL="postgresql://nowhere.invalid/x")
    assert shown.returncode == 0
    assert "Usage: tollgate" in shown.stdout.replace("python -m app.cli", "tollgate")
    assert not data_dir.exists()


def test_version_is_that_of_the_project(data_dir: Path) -> None:
    assert run_command("--version", data_dir=data_dir).stdout.startswith("tollgate 0.")


UNREACHABLE = "postgresql://tollgate:a-secret-password@127.0.0.1:9/tollgate"
MISTAKES: dict[str, tuple[list[str], dict[str, str], list[str]]] = {
    "database that does not answer": (["run"], {"DATABASE_URL": UNREACHABLE}, ["does not answer", "127.0.0.1:9"]),
    "the same, of the API": (["serve"], {"DATABASE_URL": UNREACHABLE}, ["does not answer"]),
    "the same, of a worker": (["work"], {"DATABASE_URL": UNREACHABLE}, ["does not answer"]),
    "the same, of migrations": (["migrate"], {"DATABASE_URL": UNREACHABLE}, ["does not answer"]),
    "the same, of the seed": (["seed"], {"DATABASE_URL": UNREACHABLE}, ["does not answer"]),
    "the same, of the start log": (["limits", "check"], {"DATABASE_URL": UNREACHABLE}, ["does not answer"]),
    "the same, of pruning": (["prune", "--older-than", "90d"], {"DATABASE_URL": UNREACHABLE}, ["does not answer"]),
    "the same, of tokens": (["token", "list"], {"DATABASE_URL": UNREACHABLE}, ["does not answer"]),
    "no URL": (["migrate"], {"DATABASE_URL": "localhost/x"}, ["DATABASE_URL", "postgresql://"]),
    "another database": (["migrate"], {"DATABASE_URL": "mysql://tollgate:a-secret-password@db/x"}, ["DATABASE_URL"]),
    "port is no number": (["run"], {"TOLLGATE_PORT": "http"}, ["TOLLGATE_PORT", "'http'"]),
    "port out of bounds": (["serve"], {"TOLLGATE_PORT": "65536"}, ["TOLLGATE_PORT", "65535", "'65536'"]),
    "lease too short": (["work"], {"TOLLGATE_LEASE_SECONDS": "0"}, ["TOLLGATE_LEASE_SECONDS", "'0'"]),
    "unknown level": (["run"], {"TOLLGATE_LOG_LEVEL": "loud"}, ["TOLLGATE_LOG_LEVEL", "'loud'", "debug"]),
    "data directory is a file": (["run"], {"TOLLGATE_DATA_DIR": "/dev/null"}, ["/dev/null"]),
    "data directory cannot be made": (["run"], {"TOLLGATE_DATA_DIR": "/proc/no/where"}, ["/proc/no/where"]),
    "foreign address": (["run"], {"TOLLGATE_HOST": "192.0.2.1"}, ["TOLLGATE_HOST", "192.0.2.1"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_ends_with_one_clear_sentence(mistake: str, data_dir: Path) -> None:
    arguments, variables, expected = MISTAKES[mistake]
    ended = run_command(*arguments, data_dir=data_dir, **{"TOLLGATE_PORT": "0", **variables})
    assert ended.returncode == 2
    assert ended.stderr.startswith("tollgate: ")
    assert ended.stderr.count("\n") == 1, ended.stderr
    for part in expected:
        assert part in ended.stderr
    assert "a-secret-password" not in ended.stdout + ended.stderr


def test_taken_port_is_named_before_anything_is_started(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for command in ("run", "serve"):
            ended = run_command(command, data_dir=data_dir, TOLLGATE_PORT=str(port))
            assert ended.returncode == 2
            assert ended.stderr == (
                f"tollgate: port {port} of 127.0.0.1 is in use: stop what uses it, or set TOLLGATE_PORT to another\n"
            )
    assert not data_dir.exists()


def test_unwritable_data_directory_is_named(data_dir: Path) -> None:
    """A file stands in its place: not even root can write there."""
    data_dir.touch()
    ended = run_command("run", data_dir=data_dir, TOLLGATE_PORT="0")
    assert ended.returncode == 2
    assert str(data_dir) in ended.stderr


def test_ctrl_c_lets_a_running_call_end_and_leaves_no_process(data_dir: Path) -> None:
    settings = {"TOLLGATE_PORT": str(free_port()), "TOLLGATE_ADMIN_TOKEN": TOKEN}
    with tollgate("run", "--demo", data_dir=data_dir, **settings) as first:
        client = Client(first)
        request_id = client.submit("What is running when the signal comes?")
        client.wait_for(request_id, "PROCESSING", "COMPLETED")
        first.interrupt()
        assert first.end() == 0
    assert processes_of(data_dir) == []

    started = time.monotonic()
    with tollgate("run", "--demo", data_dir=data_dir, **settings) as second:
        client = Client(second)
        # Two seconds are promised on a machine that does nothing else; this one runs the other tests meanwhile.
        seconds = time.monotonic() - started
        assert seconds < 20
        request = client.ask("query ($id: ID!) { request(id: $id) { status attempts { status } } }", id=request_id)
        assert request["request"] == {"status": "COMPLETED", "attempts": [{"status": "SUCCEEDED"}]}
    assert processes_of(data_dir) == []


def test_second_ctrl_c_does_not_wait_for_calls(data_dir: Path) -> None:
    with tollgate("emulate", "--port", "0", "--fault", "hang_midway", data_dir=data_dir) as emulator:
        emulator_url = json.loads(emulator.wait_for("\n").output.splitlines()[0])["url"]
        variables = {"TOLLGATE_PORT": "0", "TOLLGATE_ADMIN_TOKEN": TOKEN, "TOLLGATE_EMULATOR_URL": emulator_url}
        with tollgate("run", data_dir=data_dir, TOLLGATE_DRAIN_SECONDS="600", **variables) as process:
            client = Client(process)
            client.wait_for(client.submit("What never answers?"), "PROCESSING")
            with client.stream("And what never ends its answer?") as answer:
                process.interrupt()
                process.wait_for("Stopping")
                process.interrupt()
                assert "error" in answer.read().decode()
            assert process.end() == 0
    assert processes_of(data_dir) == []


def test_after_kill_9_of_everything_the_next_start_has_all_that_was_acknowledged(data_dir: Path) -> None:
    settings = {"TOLLGATE_PORT": "0", "TOLLGATE_ADMIN_TOKEN": TOKEN, "TOLLGATE_LEASE_SECONDS": "2"}
    with tollgate("run", "--demo", data_dir=data_dir, **settings) as first:
        client = Client(first)
        requests = [client.submit(f"Request number {number}") for number in range(12)]
        client.wait_for(requests[0], "PROCESSING", "COMPLETED")
        kill_all_of(data_dir)
        first.kill()
    with tollgate("run", "--demo", data_dir=data_dir, **settings) as second:
        client = Client(second)
        assert [client.wait_for(request, "COMPLETED", "FAILED") for request in requests] == ["COMPLETED"] * 12
    assert processes_of(data_dir) == []


def test_after_kill_9_of_the_run_alone_its_children_and_the_database_stop(data_dir: Path) -> None:
    settings = {"TOLLGATE_PORT": "0", "TOLLGATE_ADMIN_TOKEN": TOKEN}
    with tollgate("run", "--demo", data_dir=data_dir, **settings) as process:
        Client(process)
        children = [os.pidfd_open(child.pid) for child in processes_of(data_dir) if child.pid != process.process.pid]
        assert len(children) >= 4, "worker, emulator, supervisor and server"
        process.kill()
        for child in children:
            assert select.select([child], [], [], 60)[0], processes_of(data_dir)
            os.close(child)
    assert processes_of(data_dir) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_runs_as_an_ordinary_user_too(data_dir: Path) -> None:
    user = pwd.getpwnam("nobody")
    become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    python = interpreter_of(become)
    if python is None:
        pytest.skip(f"{user.pw_name} can enter neither this Python nor the system's")
    os.chown(data_dir.parent, user.pw_uid, user.pw_gid)
    settings = {"TOLLGATE_PORT": "0", "HOME": str(data_dir.parent), "PYTHONPATH": SEARCH_PATH}
    command = [*become, python, "-m", "app.cli"]
    with tollgate("run", "--demo", data_dir=data_dir, command=command, **settings) as process:
        process.wait_for(READY)
        token = data_dir / "admin-token"
        assert token.stat().st_uid == user.pw_uid
        assert token.stat().st_mode & 0o777 == 0o600
    assert processes_of(data_dir) == []


def test_made_admin_token_is_printed_once_and_kept(data_dir: Path) -> None:
    variables = {"TOLLGATE_PORT": "0"}
    with tollgate("run", data_dir=data_dir, **variables) as first:
        first.wait_for("Ctrl-C stops everything")
        token = (data_dir / "admin-token").read_text().strip()
        assert f"Admin token (shown this once): {token}" in first.output
        made = run_command("token", "create", "a-program", "--role", "operator", data_dir=data_dir).stdout.strip()
        listed = run_command("token", "list", data_dir=data_dir).stdout
        assert "a-program" in listed
        assert "operator" in listed
        assert made not in listed
    with tollgate("run", data_dir=data_dir, **variables) as second:
        second.wait_for("Ctrl-C stops everything")
        assert token not in second.output
        assert "is kept in" in second.output


def interpreter_of(become: list[str]) -> str | None:
    """This Python, or one of the system's of the same version, if the other user can run it and what it starts."""
    version = f"python3.{sys.version_info.minor}"
    script = "import subprocess, sys, app.cli; sys.exit(subprocess.run([sys.executable, '--version']).returncode)"
    for python in (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin")):
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": SEARCH_PATH}
        if python and shutil.which("setpriv"):
            tried = subprocess.run([*become, python, "-c", script], env=environment, cwd="/", capture_output=True)
            if tried.returncode == 0:
                return python
    return None


def kill_all_of(data_dir: Path) -> None:
    for process in processes_of(data_dir):
        os.kill(process.pid, signal.SIGKILL)
