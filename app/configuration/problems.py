"""What is wrong in configuration files: all of it in one error, a line for each."""

from __future__ import annotations

from typing import Final

from app.configuration.records import Position
from app.errors import ConfigurationError, RequestRefused, ValidationError

_MAX_REPORTED: Final = 20
_LONGEST_VALUE: Final = 120


class Problems:
    """Collects, so that a file can be mended in one go."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int, str], None] = {}

    @property
    def count(self) -> int:
        return len(self._found)

    def add(self, position: Position, text: str) -> None:
        self._found[(position.file, position.line, text)] = None

    def refuse(self, position: Position, path: str, error: RequestRefused, *, shown: str | None = None) -> None:
        """`shown` is what the file says where the value came from the environment, which is not repeated."""
        if not isinstance(error, ValidationError):
            self.add(position, f"{path}: {error.message}")
            return
        # An error inside a value names its place there: "parameterRules[0].minimum".
        name = path.rpartition(".")[2]
        if error.field.startswith(f"{name}["):
            path += error.field.removeprefix(name)
        value = repr(error.value) if shown is None else f"what {shown!r} stands for"
        if len(value) > _LONGEST_VALUE:
            value = value[: _LONGEST_VALUE - 3] + "..."
        self.add(position, f"{path} must be {error.bound}, not {value}")

    def raise_if_any(self) -> None:
        """Raises ConfigurationError, in the order of files as they were read and of lines."""
        if not self._found:
            return
        files = list(dict.fromkeys(file for file, _, _ in self._found))
        ordered = sorted(self._found, key=lambda found: (files.index(found[0]), found[1]))
        lines = [f"{file}:{line}: {text}" for file, line, text in ordered[:_MAX_REPORTED]]
        if len(ordered) > _MAX_REPORTED:
            lines.append(f"and {len(ordered) - _MAX_REPORTED} more")
        raise ConfigurationError("\n".join(lines))
