"""docs/configuration.md can be pasted from top to bottom into an empty directory."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from app.catalog.records import UsageUnit
from app.configuration.document import MODEL_KEYS, PROVIDER_KEYS
from app.configuration.fields import MODEL_FIELDS, PROVIDER_FIELDS, price_key
from tests.app.configuration.conftest import COMMAND
from tests.contracts.markdown import REPOSITORY, blocks_of

GUIDE = "docs/configuration.md"


def test_the_guide_can_be_pasted(database_dsn: str, tmp_path: Path) -> None:
    script = "".join(block.text for block in blocks_of(GUIDE, "sh") if block.notes == {"paste": "elsewhere"})
    pasted = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}",
            "DATABASE_URL": database_dsn,
            "NO_COLOR": "1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert pasted.returncode == 0, pasted.stdout + pasted.stderr
    assert re.findall(r"^(?:Plan|Applied|Nothing).*|^as it.*", pasted.stdout, re.MULTILINE) == [
        "Plan: 3 to add, 0 to change, 0 to remove.",
        "Applied: 3 added, 0 changed, 0 removed.",
        "Nothing differs: the catalog is as the file says.",
        "Applied: 0 added, 1 changed, 0 removed.",
        "as it should be",
        "Plan: 0 to add, 1 to change, 0 to remove.",
        "Applied: 2 added, 1 changed, 0 removed.",
        "Nothing differs: the catalog is as the file says.",
    ]
    assert "variables.yaml:4: providers[0].limits.requestsPerMinute: the environment variable OPENAI_" in pasted.stderr


def test_the_guide_names_every_field() -> None:
    text = (REPOSITORY / GUIDE).read_text()
    fields = {field.name for field in (*PROVIDER_FIELDS, *MODEL_FIELDS)}
    for name in {*fields, *PROVIDER_KEYS, *MODEL_KEYS, *(price_key(unit) for unit in UsageUnit)}:
        assert f"`{name}`" in text, name
