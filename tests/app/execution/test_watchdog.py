"""A process that is frozen is killed at the instant it named, and only then."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

SCRIPT = """
import os, signal, time
from app.execution.watchdog import Watchdog

watchdog = Watchdog()
watchdog.start()
{steps}
"""
FREEZE = "os.kill(os.getpid(), signal.SIGSTOP)"


def run(*steps: str) -> int:
    return subprocess.run([sys.executable, "-c", SCRIPT.format(steps="\n".join(steps))], timeout=20).returncode


def test_a_frozen_process_is_killed_at_its_instant() -> None:
    before = time.monotonic()
    assert run("watchdog.kill_at(time.monotonic() + 0.5)", FREEZE) == -signal.SIGKILL
    assert time.monotonic() - before > 0.5


def test_a_later_instant_takes_the_place_of_an_earlier_one() -> None:
    later = "watchdog.kill_at(time.monotonic() + 60)"
    assert run("watchdog.kill_at(time.monotonic() + 0.3)", later, "time.sleep(0.6)", "watchdog.stop()") == 0


def test_a_process_that_ends_its_watchdog_is_not_killed() -> None:
    assert run("watchdog.kill_at(time.monotonic() + 0.2)", "watchdog.stop()", "time.sleep(0.4)") == 0


def test_a_guardian_that_was_killed_is_replaced() -> None:
    kill = "watchdog._process.kill(); watchdog._process.wait()"
    assert run("watchdog.kill_at(time.monotonic() + 60)", kill, "watchdog.kill_at(0)", FREEZE) == -signal.SIGKILL


def test_a_guardian_ends_with_its_process() -> None:
    steps = ("print(watchdog._process.pid, flush=True)", "os.kill(os.getpid(), signal.SIGKILL)")
    script = SCRIPT.format(steps="\n".join(steps))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # The guardian has its stderr too: its end is the end of that.
    output, _ = process.communicate(timeout=20)
    assert output.strip().isdigit()
    assert process.returncode == -signal.SIGKILL
