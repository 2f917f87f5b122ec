"""Files to load, services on a database, and the commands as processes of their own."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from app.configuration.files import load
from app.configuration.records import Document, Plan
from app.configuration.service import ConfigurationService
from app.db.pool import Database

COMMAND = str(Path(sys.executable).with_name("tollgate"))

Loads = Callable[..., Document]


class Ended(NamedTuple):
    code: int | None
    output: str
    errors: str


Runs = Callable[..., Coroutine[Any, Any, Ended]]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def read(write: Callable[[str, str], Path]) -> Loads:
    """Loads the text as tollgate.yaml."""

    def read(text: str, environment: Mapping[str, str] | None = None) -> Document:
        return load(write("tollgate.yaml", text), environment or {})

    return read


@pytest.fixture
def service(database: Database) -> ConfigurationService:
    return ConfigurationService(database)


@pytest.fixture
def tollgate(database_dsn: str, tmp_path: Path) -> Runs:
    """Runs the command in an empty directory, on the test's database, without a terminal."""

    async def run(*arguments: str, environment: Mapping[str, str] | None = None) -> Ended:
        process = await asyncio.create_subprocess_exec(
            COMMAND,
            *arguments,
            cwd=tmp_path,
            env={**os.environ, "DATABASE_URL": database_dsn, "NO_COLOR": "1", **(environment or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        return Ended(process.returncode, output.decode(), errors.decode())

    return run


def lines(plan: Plan) -> list[str]:
    """A line for each row of a plan, with its fields."""
    shown = []
    for change in plan.changes:
        fields = ", ".join(f"{item.path}: {item.old} -> {item.new}" for item in change.differences)
        shown.append(f"{change.action} {change.kind} {change.key}" + (f" ({fields})" if fields else ""))
    return shown


async def fetch(database: Database, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    async with database.connection() as connection:
        return [tuple(row) for row in await connection.fetch(statement, *values)]


class Yaml12(yaml.SafeLoader):
    """As editors read it: times, and words such as "no", are text."""


Yaml12.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":bool"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml12.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), list("tf"))
