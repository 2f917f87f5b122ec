"""The provider emulator for tests: one process per test session, providers of its own for each test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest


class Emulator:
    """A view of a running emulator in which no other test's providers can be seen."""

    def __init__(self, base_url: str, suffix: str) -> None:
        self.base_url = base_url
        self._suffix = suffix
        self._names: set[str] = set()
        self._control = httpx.Client(base_url=f"{base_url}/_emulator", timeout=30)

    def name(self, provider: str = "default") -> str:
        """What the emulator calls it."""
        name = f"{provider}-{self._suffix}" if self._suffix else provider
        self._names.add(name)
        return name

    def url(self, provider: str = "default") -> str:
        """What a client of that provider takes as its base URL; it ends with /v1."""
        return f"{self.base_url}/{self.name(provider)}/v1"

    def root(self, provider: str = "default") -> str:
        """The same for clients whose paths have the API version in them, as those of Anthropic and Google have."""
        return f"{self.base_url}/{self.name(provider)}"

    def configure(self, provider: str = "default", /, **settings: Any) -> dict[str, Any]:
        """Merges fields of app.providers.emulator.behaviour.ProviderSettings; None sets one back."""
        response = self._control.put(f"/providers/{self.name(provider)}", json=settings)
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    def record(self, provider: str = "default", /, *, calls: bool = True) -> dict[str, Any]:
        """arrivals, served (by status), billed, outcomes, peak_*, violation_counts, violations, limit_edits, calls."""
        response = self._control.get(
            "/record", params={"provider": self.name(provider), "calls": "true" if calls else "false"}
        )
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    def reset(self, provider: str = "default", /) -> None:
        """Begins the record anew."""
        self._control.delete("/record", params={"provider": self.name(provider)}).raise_for_status()

    def wait(
        self,
        provider: str = "default",
        /,
        *,
        arrivals: int = 0,
        running: int = 0,
        ended: int = 0,
        timeout_seconds: float = 10,
    ) -> None:
        """Returns as soon as at least so many calls have arrived, are running and have ended since the last reset.

        It blocks: where this very event loop makes the calls, `await asyncio.to_thread(emulator.wait, ...)`.
        """
        params: dict[str, Any] = {"arrivals": arrivals, "running": running, "ended": ended}
        response = self._control.get(
            "/wait",
            params={"provider": self.name(provider), "timeout_seconds": timeout_seconds, **params},
            timeout=timeout_seconds + 10,
        )
        assert response.status_code == 200, f"waited for {params} in vain: {response.text}"

    def close(self) -> None:
        for name in self._names:
            self._control.delete(f"/providers/{name}")
        self._control.close()


@contextmanager
def emulator_process(*arguments: str) -> Iterator[str]:
    """A real `python -m app.providers.emulator`; yields its base URL. It ends with this process, however that ends."""
    command = [sys.executable, "-m", "app.providers.emulator", "--port", "0", "--until-stdin-closes", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"the emulator ended with exit code {process.wait()}"
        yield str(json.loads(line)["url"])
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(timeout=10)


@pytest.fixture(scope="session")
def emulator_url() -> Iterator[str]:
    with emulator_process() as url:
        yield url


@pytest.fixture
def emulator(emulator_url: str) -> Iterator[Emulator]:
    view = Emulator(emulator_url, uuid4().hex[:12])
    yield view
    view.close()
