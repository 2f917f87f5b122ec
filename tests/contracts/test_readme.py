"""README.md and docs/quick-start.md can be pasted from top to bottom in a fresh directory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.markdown import REPOSITORY, Block, blocks_of
from tests.tollgate_process import READY, environment, free_port, processes_of, tollgate

# What a block may say of itself in a comment: <!-- paste: server --> is started and left running, what "installs"
# packages is run where the environment is a new one; the others are not run, but have to be valid shell.
NOT_RUN = {"not here", "needs a key", "needs a server", "needs Docker", "done by make", "elsewhere"}


@pytest.fixture
def checkout() -> Iterator[Path]:
    """The project's files as a clone has them, in a directory that the database's user may enter."""
    directory = Path(tempfile.mkdtemp(prefix="tollgate-paste-"))
    directory.chmod(0o755)
    for path in tracked_files():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / path, target)
    yield directory
    assert processes_of(directory) == []
    shutil.rmtree(directory)


def tracked_files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    files = listed.stdout.splitlines() if listed.returncode == 0 else []
    return [file for file in files if (REPOSITORY / file).is_file()] or [
        path.relative_to(REPOSITORY).as_posix()
        for path in REPOSITORY.rglob("*")
        if path.is_file() and not {".venv", ".git", ".tollgate", "node_modules"} & set(path.parts)
    ]


@pytest.mark.parametrize("guide", ["README.md", "docs/quick-start.md"])
def test_guide_can_be_pasted_from_top_to_bottom(guide: str, checkout: Path) -> None:
    blocks = blocks_of(guide, "sh")
    server, *others = [block for block in blocks if block.notes.get("paste") not in NOT_RUN]
    assert server.notes == {"paste": "server"}
    port = free_port()
    variables = {"TOLLGATE_PORT": str(port), **make_variables(guide, checkout)}
    if (checkout / ".venv").exists():
        others = [block for block in others if block.notes != {"paste": "installs"}]
    assert all(block.notes in ({}, {"paste": "installs"}) for block in others)
    command = ["bash", "-euc", server.text]
    with tollgate(data_dir=checkout / ".tollgate", command=command, **variables) as process:
        process.wait_for(READY, timeout_seconds=600)
        script = "".join(f"echo '== line {block.line}' >&2\n{block.text}" for block in others)
        pasted = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace("127.0.0.1:8000", f"127.0.0.1:{port}")],
            cwd=checkout,
            env=environment(checkout / ".tollgate", TOLLGATE_PORT=str(port)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert pasted.returncode == 0, pasted.stdout + pasted.stderr
    assert '"errors"' not in pasted.stdout
    expect_of(guide, pasted.stdout)


def expect_of(guide: str, output: str) -> None:
    refusals = re.findall(r'"code":"(\w+)"', output)
    if guide == "README.md":
        assert refusals == []
        assert '"ref":"openai:gpt-5-nano"' in output
        assert "'status': 'COMPLETED'" in output, "the subscription shows the end"
        assert re.search(r'"cost":\{"total":"0\.0\d+","currency":"USD","lines":\[', output)
        assert re.search(r"'x-tollgate-cost': '0\.0\d+'", output), "the gateway's headers"
        assert re.search(r"^\d+ 0\.0\d+ USD$", output, re.MULTILINE), "the summary of the Python package"
        assert "Applied: 0 added, 3 changed, 0 removed." in output
    else:
        assert refusals == ["FORBIDDEN"]
        assert '"status":"ready"' in output
        assert output.count('"__typename":"ModelRequest"') == 8
        assert '"requestsPerMinute":6}' in output
        assert "x-tollgate-cost: 0.0" in output.lower()
        assert "event: message_stop" in output
        assert '"usageSummary":{"requests":' in output
        assert "Nothing differs" in output


def make_variables(guide: str, checkout: Path) -> dict[str, str]:
    """With CI=true README's first command installs from the lock as a newcomer's; else this environment stands in."""
    if os.environ.get("CI") == "true" and guide == "README.md":
        return {"PYTHON": sys.executable}
    stand_in_environment(checkout / ".venv")
    return {"PYTHONPATH": str(checkout)}


def stand_in_environment(directory: Path) -> None:
    """This environment once more, which `make` takes for one that it made just now."""
    directory.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if not entry.name.startswith("."):
            (directory / entry.name).symlink_to(entry)
    (directory / ".runtime").touch()


@pytest.mark.parametrize(
    ("guide", "block"),
    [
        pytest.param(guide, block, id=f"{guide}:{block.line}")
        for guide in (
            "README.md",
            *sorted(path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("docs/*.md")),
        )
        for block in blocks_of(guide, "sh")
    ],
)
def test_every_shell_block_is_valid_and_says_whether_it_is_run(guide: str, block: Block) -> None:
    checked = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True)
    assert checked.stderr == ""
    assert block.notes.get("paste", "server") in NOT_RUN | {"server", "installs"}
    if guide not in ("README.md", "docs/quick-start.md"):
        assert block.notes.get("paste") not in ("server", "installs"), "no test runs it"


@pytest.mark.parametrize("guide", ["README.md", "docs/quick-start.md", "docs/operations.md"])
def test_targets_of_make_that_a_guide_names_exist(guide: str) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z]+)", (REPOSITORY / guide).read_text(), re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{guide} names `make {target}`"


def test_make_help_lists_every_target_that_is_there() -> None:
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    targets = set(re.findall(r"^\.PHONY: (.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)[0].split())
    assert set(re.findall(r"^  ([a-z]+) ", shown, re.MULTILINE)) == targets
    assert {"run", "demo", "test", "soak", "bench", "generate", "lint", "lock", "help"} <= targets
