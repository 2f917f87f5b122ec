"""docs/operations.md lists every environment variable, with its default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import AliasChoices

from app.config import Config
from app.credentials.environment import variable_for
from tests.contracts.markdown import REPOSITORY

OPERATIONS = (REPOSITORY / "docs/operations.md").read_text()
ROW = re.compile(
    r"^\| `(?P<variable>(?:TOLLGATE_|DATABASE_)[A-Z_]+)` \| (?P<default>[^|]+) \| (?P<means>[^|]+) \|$", re.M
)
DOCUMENTED = {match["variable"]: match for match in ROW.finditer(OPERATIONS)}


def variables() -> dict[str, Any]:
    """Each variable with its default."""
    found = {}
    for name, field in Config.model_fields.items():
        alias = field.validation_alias
        variable = str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"TOLLGATE_{name.upper()}"
        found[variable] = field.default
    return found


def shown(default: Any) -> str:
    match default:
        case None:
            return "unset"
        case bool():
            return f"`{str(default).lower()}`"
        case float() if default == int(default):
            return f"`{int(default)}`"
        case Path() | str() | int() | float():
            return f"`{default}`"
    raise AssertionError(default)


def test_every_variable_is_documented_and_no_other() -> None:
    assert set(DOCUMENTED) == set(variables())
    assert len(ROW.findall(OPERATIONS)) == len(DOCUMENTED), "a variable is documented twice"


@pytest.mark.parametrize("variable", variables())
def test_documented_default_is_the_real_one(variable: str) -> None:
    assert DOCUMENTED[variable]["default"] == shown(variables()[variable])


@pytest.mark.parametrize("file", ["README.md", "docs/graphql.md", "docs/limits.md", "compose.yaml", "Dockerfile"])
def test_variables_that_other_files_name_are_read(file: str) -> None:
    text = (REPOSITORY / file).read_text()
    assert set(re.findall(r"\bTOLLGATE_[A-Z_]+\b", text)) <= set(variables()) | of_the_package()


def of_the_package() -> set[str]:
    """What programs that use the Python package are configured by."""
    package = "".join(path.read_text() for path in (REPOSITORY / "tollgate").glob("*.py"))
    return set(re.findall(r'environ\.get\("(TOLLGATE_[A-Z_]+)"\)', package))


def test_variables_of_the_package_are_named_beside_those_of_the_server() -> None:
    assert of_the_package() >= {"TOLLGATE_URL", "TOLLGATE_TOKEN"}
    for variable in of_the_package():
        assert f"`{variable}`" in OPERATIONS


def test_documented_names_of_keys_are_those_that_are_read() -> None:
    assert variable_for("openai") == "OPENAI_API_KEY"
    assert variable_for("my-vllm") == "MY_VLLM_API_KEY"
