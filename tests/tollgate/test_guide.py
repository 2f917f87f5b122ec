"""docs/python.md can be pasted from top to bottom into a file, and run."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from tests.contracts.markdown import blocks_of
from tests.tollgate.test_embedded import data_dir, wait_for_the_end
from tests.tollgate_process import environment

__all__ = ["data_dir"]

GUIDE = "docs/python.md"


def test_the_guide_runs_from_top_to_bottom(data_dir: Path) -> None:
    blocks = blocks_of(GUIDE, "python")
    for block in blocks:
        ast.parse(block.text)
    program = "\n".join(block.text for block in blocks if not block.notes)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(data_dir),
        cwd=data_dir.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    wait_for_the_end(data_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Hello from the emulator."
    assert re.fullmatch(r"\d+ \d+ 0\.0\d+ USD", lines[1])
    assert "8" in lines
    assert any(line.startswith("[256, 256] 0.0") for line in lines)
    assert sum("COMPLETED" in line for line in lines) == 3
    assert "['local:llama3.2']" in lines
    assert lines[-2].startswith("parameters.temperature - ")
    assert lines[-1].startswith("NOT_FOUND - ")
