"""Runs the blocks of a guide in order, as one who pastes them into a shell and into one Python beside it.

Run as a script: stdin has [[language, line, text], ...]. What a shell block defines and exports, later blocks have.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# All that a block sets is exported, so that the next block has it.
_SCRIPT = """
set -aeuo pipefail
. "$1"
. "$2"
{ declare -f; export -p; } > "$1"
env -0 > "$3"
"""


def main() -> None:
    blocks: list[tuple[str, int, str]] = json.load(sys.stdin)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    sys.path.insert(0, "")
    with tempfile.TemporaryDirectory() as scratch:
        state, block, variables = (Path(scratch) / name for name in ("state", "block", "variables"))
        state.touch()
        for language, line, text in blocks:
            sys.stderr.write(f"== line {line}\n")
            sys.stderr.flush()
            if language == "python":
                exec(compile(text, f"line {line}", "exec"), namespace)  # what the guide shows
                sys.stdout.flush()
                continue
            block.write_text(text)
            command = ["bash", "-c", _SCRIPT, "bash", str(state), str(block), str(variables)]
            if subprocess.run(command, stdin=subprocess.DEVNULL).returncode != 0:
                raise SystemExit(1)
            for item in variables.read_bytes().split(b"\0"):
                name, _, value = item.partition(b"=")
                if name:
                    os.environb[name] = value


if __name__ == "__main__":
    main()
