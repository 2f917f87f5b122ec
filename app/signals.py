"""SIGINT and SIGTERM: the first one stops a process, the next one does not wait for what runs."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True, slots=True)
class Signals:
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of_this_process(cls) -> Self:
        """From now on, on the running loop."""
        signals = cls()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, signals._receive)
        return signals

    def _receive(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()
