"""Dockerfile and compose.yaml, as far as they can be run without a container engine: their own commands are run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.config import Config
from app.credentials.environment import variable_for
from seed.plan import Kind
from seed.reference import load_reference
from tests.contracts.markdown import REPOSITORY
from tests.tollgate_process import TollgateProcess, environment, free_port

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
TOLLGATE_SERVICES = ("migrate", "api", "worker")


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) in order, continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    pairs = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return [(name.upper(), arguments) for name, arguments in pairs]


def last(name: str) -> str:
    return [arguments for instruction, arguments in instructions() if instruction == name][-1]


class Image:
    """The file system that the instructions build, below a directory; a virtual environment stands in for a base's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._working_directory = "/"
        self.environment: dict[str, str] = {}

    def inside(self, text: str) -> str:
        """The image's directories in `text`, as they are on this machine."""
        return re.sub(r"(?<![\w/.])(/(?:opt/tollgate|src|var/lib/tollgate-data))\b", rf"{self.root}\1", text)

    def path(self, text: str) -> Path:
        return Path(self.inside(str(Path(self._working_directory) / text)))

    def build(self) -> None:
        for name, arguments in instructions():
            match name:
                case "WORKDIR":
                    self._working_directory = arguments
                    self.path(".").mkdir(parents=True, exist_ok=True)
                case "COPY" if not arguments.startswith("--from"):
                    self._copy(arguments.split())
                case "ENV":
                    pairs = (pair.split("=", 1) for pair in shlex.split(arguments))
                    self.environment.update({key: self.inside(value) for key, value in pairs})
                case "RUN":
                    self._run(arguments)
        self.environment["PATH"] = self.environment["PATH"].replace("$PATH", os.environ["PATH"])

    def _copy(self, arguments: list[str]) -> None:
        *sources, target = arguments
        for source in sources:
            assert is_sent_to_the_engine(source), f".dockerignore leaves out {source}"
            if (REPOSITORY / source).is_dir():
                shutil.copytree(REPOSITORY / source, self.path(target), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(REPOSITORY / source, self.path(target) / source)

    def _run(self, command: str) -> None:
        if command.startswith("groupadd"):
            return  # it would add a user to this machine
        subprocess.run(
            ["sh", "-euc", self.inside(command).replace("python -m venv", f"{sys.executable} -m venv")],
            cwd=self.path("."),
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            check=True,
            capture_output=True,
        )
        if "-m venv" in command:
            # What the lock names is installed here already: pip finds it, and compares its version.
            folder = next((self.root / "opt/tollgate/lib").glob("python3.*/site-packages"))
            (folder / "installed.pth").write_text(sysconfig.get_path("purelib") + "\n")


def is_sent_to_the_engine(source: str) -> bool:
    return f"!{source}" in (REPOSITORY / ".dockerignore").read_text().splitlines()


def test_image_builds_and_its_commands_serve_work_and_answer_the_health_check(
    database_dsn: str, tmp_path: Path
) -> None:
    image = Image(tmp_path / "image")
    image.build()
    settings = {**image.environment, "TOLLGATE_PORT": str(free_port()), "TOLLGATE_HOST": "127.0.0.1"}
    variables = environment(tmp_path / "data", DATABASE_URL=database_dsn, **settings)
    entrypoint = json.loads(last("ENTRYPOINT"))
    cwd = image.path(last("WORKDIR"))

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=variables, cwd=cwd, capture_output=True, text=True, timeout=120)

    migrated = run(*resolved([*entrypoint, *COMPOSE["services"]["migrate"]["command"]], variables))
    assert migrated.returncode == 0, migrated.stderr
    api = TollgateProcess(resolved([*entrypoint, *json.loads(last("CMD"))], variables), variables, cwd)
    worker = TollgateProcess(
        resolved([*entrypoint, *COMPOSE["services"]["worker"]["command"]], variables), variables, cwd
    )
    try:
        api.wait_for("Tollgate serves at")
        worker.wait_for("worker_ready")
        assert run(*resolved(health_check(), variables)).returncode == 0
        token = (image.path(last("WORKDIR")) / "admin-token").read_text().strip()
        answer = httpx.post(
            f"http://127.0.0.1:{settings['TOLLGATE_PORT']}/graphql",
            json={"query": "{ llmProviders { name } }"},
            headers={"authorization": f"Bearer {token}"},
        ).json()
        assert len(answer["data"]["llmProviders"]) == 6
        api.process.terminate()
        worker.process.terminate()
        assert (api.end(), worker.end()) == (0, 0)
        assert run(*resolved(health_check(), variables)).returncode != 0
    finally:
        api.kill()
        worker.kill()


def health_check() -> list[str]:
    return list(json.loads(last("HEALTHCHECK").split("CMD", 1)[1]))


def resolved(command: list[str], variables: dict[str, str]) -> list[str]:
    """With the program as the image's PATH finds it."""
    program = shutil.which(command[0], path=variables["PATH"])
    assert program is not None
    return [program, *command[1:]]


def test_image_runs_as_an_unprivileged_user_that_it_makes() -> None:
    made = re.search(r"groupadd --gid (\d+) .*useradd --uid (\d+)", DOCKERFILE)
    assert made is not None
    assert last("USER") == f"{made[2]}:{made[1]}"
    assert int(made[2]) >= 1000
    names = [name for name, _ in instructions()]
    assert len(names) - names[::-1].index("USER") > max(
        index for index, name in enumerate(names) if name in ("RUN", "COPY")
    )


def test_nothing_secret_is_in_the_image() -> None:
    assert "TOKEN" not in DOCKERFILE
    assert "API_KEY" not in DOCKERFILE
    assert "PASSWORD" not in DOCKERFILE
    kept = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert not {"!.env", "!.tollgate", "!.git"} & set(kept)


def test_services_are_a_database_a_migration_the_api_and_workers() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"postgres", *TOLLGATE_SERVICES}
    assert services["worker"]["deploy"]["replicas"] >= 2
    assert "container_name" not in services["worker"], "a name would forbid a second worker"
    assert "ports" not in services["worker"], "a port would forbid a second worker"
    for name in ("api", "worker"):
        assert services[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


@pytest.mark.parametrize("service", ["api", "worker"])
def test_process_may_drain_before_it_is_killed(service: str) -> None:
    grace = int(COMPOSE["services"][service]["stop_grace_period"].removesuffix("s"))
    assert grace > Config.model_fields["drain_seconds"].default


@pytest.mark.parametrize("service", TOLLGATE_SERVICES)
def test_variables_of_a_service_are_known(service: str) -> None:
    providers = (item.identity.key for item in load_reference() if item.identity.kind is Kind.PROVIDER)
    keys = {variable_for(key.rpartition("/")[2]) for key in providers}
    known = {"DATABASE_URL"} | {f"TOLLGATE_{name.upper()}" for name in Config.model_fields} | keys
    given = COMPOSE["services"][service]["environment"]
    assert set(given) <= known
    if service == "migrate":
        assert not keys & set(given), "it makes no calls"
    else:
        assert keys <= set(given), "the keys of all seeded providers reach what makes calls"
        assert all(given[key] is None for key in keys), "they are passed on, not written here"
