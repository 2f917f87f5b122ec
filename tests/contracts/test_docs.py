"""What the guides say is so: what can be pasted is run, each metric and each link is there.

A block of sh, python or graphql is run, unless a comment before it says that it is not for pasting, such as
<!-- paste: elsewhere -->.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from graphql import OperationDefinitionNode, OperationType, parse
from websockets.asyncio.client import connect

from app.db.pool import Database
from app.errors import RequestRefused
from seed import service as seed
from tests.contracts import paste
from tests.contracts.markdown import REPOSITORY, Block, blocks_of
from tests.emulator import Emulator
from tests.serving import ADMIN_TOKEN, Api, serve_api
from tests.tollgate_process import READY, environment, free_port, tollgate
from tests.worker_process import WorkerProcess

GUIDES = sorted(path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "docs").rglob("*.md"))
# Guides that a test of their own pastes.
PASTED_BY = {
    "docs/configuration.md": "tests/app/configuration/test_guide.py",
    "docs/python.md": "tests/tollgate/test_guide.py",
    "docs/quick-start.md": "tests/contracts/test_readme.py",
}
PASTED_HERE = [
    guide
    for guide in GUIDES
    if guide not in PASTED_BY
    and any(not block.notes for language in ("sh", "python") for block in blocks_of(guide, language))
]


@pytest.mark.parametrize("guide", PASTED_BY)
def test_guide_is_pasted_by_a_test_of_its_own(guide: str) -> None:
    assert f'"{guide}"' in (REPOSITORY / PASTED_BY[guide]).read_text()


@pytest.fixture
def directory() -> Iterator[Path]:
    """Empty but for .venv; as root the database is another user's, who has to be able to enter it."""
    directory = Path(tempfile.mkdtemp(prefix="tollgate-guide-"))
    directory.chmod(0o755)
    (directory / ".venv").symlink_to(sys.prefix)
    yield directory
    shutil.rmtree(directory)


@pytest.mark.parametrize("guide", PASTED_HERE)
def test_guide_can_be_pasted_beside_a_demo_server(guide: str, directory: Path) -> None:
    blocks = sorted(blocks_of(guide, "sh") + blocks_of(guide, "python"), key=lambda block: block.line)
    port = str(free_port())
    pasted = [
        [block.language, block.line, block.text.replace("127.0.0.1:8000", f"127.0.0.1:{port}")]
        for block in blocks
        if not block.notes
    ]
    data_dir = directory / ".tollgate"
    with tollgate("run", "--demo", data_dir=data_dir, TOLLGATE_PORT=port) as process:
        process.wait_for(READY)
        ended = subprocess.run(
            [sys.executable, paste.__file__],
            input=json.dumps(pasted),
            cwd=directory,
            env=environment(data_dir, TOLLGATE_PORT=port),
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert ended.returncode == 0, f"{guide}: {ended.stdout}{ended.stderr}"


@pytest.mark.parametrize(
    "guide", [guide for guide in GUIDES if guide != "docs/graphql.md" and blocks_of(guide, "graphql")]
)
async def test_graphql_of_a_guide_runs(guide: str, database: Database, database_dsn: str, tmp_path: Path) -> None:
    await seed.seed_reference(database)
    kept: dict[str, Any] = {}
    async with serve_api(database_dsn, tmp_path) as api:
        for block in blocks_of(guide, "graphql"):
            await run_example(api, block, kept)


@pytest.mark.parametrize("guide", ["README.md", *GUIDES])
def test_blocks_of_a_guide_are_well_formed(guide: str) -> None:
    for block in blocks_of(guide, "python"):
        compile(block.text, f"{guide}:{block.line}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for block in blocks_of(guide, "json"):
        json.loads(block.text)
    for block in blocks_of(guide, "yaml"):
        yaml.safe_load(block.text)


async def test_every_example_of_the_graphql_guide_runs(
    database: Database, database_dsn: str, tmp_path: Path, emulator: Emulator
) -> None:
    await seed.seed_reference(database)
    kept: dict[str, Any] = {}
    with WorkerProcess(database_dsn, TOLLGATE_EMULATOR_URL=emulator.base_url):
        async with serve_api(database_dsn, tmp_path) as api:
            for block in blocks_of("docs/graphql.md", "graphql"):
                try:
                    await run_example(api, block, kept)
                except AssertionError as error:
                    raise AssertionError(f"docs/graphql.md, line {block.line}: {error}") from None
    assert {"providerId", "modelId", "cursor", "requestId", "tokenId"} <= set(kept)


async def run_example(api: Api, block: Block, kept: dict[str, Any]) -> None:
    document = parse(block.text)
    (operation,) = document.definitions
    assert isinstance(operation, OperationDefinitionNode)
    names = [definition.variable.name.value for definition in operation.variable_definitions or ()]
    variables = {name: kept[name] for name in names}
    if operation.operation is OperationType.SUBSCRIPTION:
        results = await subscribe(api, block.text, variables)
        assert results
        assert all("errors" not in result for result in results), results
        return
    data = await api.data(block.text, variables)
    answers = {value["__typename"] for value in data.values() if isinstance(value, dict) and "__typename" in value}
    errors = {kind.__name__ for kind in all_subclasses(RequestRefused)}
    assert answers & errors == ({block.notes["answers"]} if "answers" in block.notes else set()), data
    for path, name in re.findall(r"([\w.]+) as (\w+)", block.notes.get("keeps", "")):
        value = data
        for part in path.split("."):
            value = value[part]
        kept[name] = value


def all_subclasses(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(all_subclasses(child) for child in kind.__subclasses__()))


async def subscribe(api: Api, query: str, variables: dict[str, Any]) -> list[dict[str, Any]]:
    """Every result of a request's subscription; the first one where it has no end."""
    results = []
    async with connect(
        api.websocket_url,
        subprotocols=["graphql-transport-ws"],  # type: ignore[list-item] # a NewType of str
    ) as socket:
        await socket.send(
            json.dumps({"type": "connection_init", "payload": {"Authorization": f"Bearer {ADMIN_TOKEN}"}})
        )
        assert json.loads(await socket.recv())["type"] == "connection_ack"
        payload = {"query": query, "variables": variables}
        await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
        async for text in socket:
            message = json.loads(text)
            if message["type"] != "next":
                assert message["type"] == "complete", message
                break
            results.append(message["payload"])
            if "catalogChanged" in message["payload"].get("data", {}):
                break
    return results


async def test_metrics_are_those_that_operations_lists(database_dsn: str, tmp_path: Path) -> None:
    async with serve_api(database_dsn, tmp_path) as api:
        await api.data("{ llmProviders { name } }")
        shown = (await api.http.get("/metrics")).text
    there = set(re.findall(r"^# TYPE (tollgate_\w+) ", shown, re.MULTILINE)) - set(
        re.findall(r"^# TYPE (\w+_created) ", shown, re.MULTILINE)
    )
    operations = (REPOSITORY / "docs/operations.md").read_text()
    assert set(re.findall(r"^\| `(tollgate_\w+)` \|", operations, re.MULTILINE)) == there


@pytest.mark.parametrize("guide", ["README.md", "CHANGELOG.md", *GUIDES])
def test_links_of_a_guide_lead_somewhere(guide: str) -> None:
    text = (REPOSITORY / guide).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text):
        assert ((REPOSITORY / guide).parent / target).resolve().exists(), f"{guide} links to {target}"


@pytest.mark.parametrize("guide", ["README.md", *GUIDES])
def test_files_that_a_guide_names_are_there(guide: str) -> None:
    text = (REPOSITORY / guide).read_text()
    for name in re.findall(r"`((?:app|workers|seed|tests|bench|prisma|docs)/[\w./-]*)`", text):
        assert (REPOSITORY / name).exists(), f"{guide} names {name}"


def test_every_decision_is_listed_in_the_architecture() -> None:
    architecture = (REPOSITORY / "docs/architecture.md").read_text()
    for decision in (REPOSITORY / "docs/decisions").glob("*.md"):
        assert re.match(r"\d{4}-[a-z0-9-]+\.md$", decision.name)
        assert f"(decisions/{decision.name})" in architecture
        text = decision.read_text()
        for heading in ("# " + decision.name[:4] + " ", "## Context", "## Decision", "## Consequences"):
            assert heading in text, f"{decision.name} has no {heading!r}"
