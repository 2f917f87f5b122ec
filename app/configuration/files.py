"""Reads a configuration file and the files that it includes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from glob import has_magic
from pathlib import Path
from typing import Final

from app.configuration.document import included, merge, read_document
from app.configuration.nodes import read_nodes
from app.configuration.problems import Problems
from app.configuration.records import Document, Position
from app.errors import ConfigurationError

MAX_FILE_BYTES: Final = 64 * 1024 * 1024


def load(path: Path, environment: Mapping[str, str] | None = None) -> Document:
    """Raises ConfigurationError, a line for each thing that is wrong: file, line, path, value and bound."""
    problems = Problems()
    document = _Files(os.environ if environment is None else environment, problems).load(path, None, ())
    problems.raise_if_any()
    return document


class _Files:
    def __init__(self, environment: Mapping[str, str], problems: Problems) -> None:
        self._environment = environment
        self._problems = problems
        self._loaded: dict[Path, Document] = {}

    def load(self, path: Path, asked: Position | None, chain: tuple[Path, ...]) -> Document:
        """`asked`: where the file is included. `chain`: the files that include it, outermost first."""
        resolved = path.resolve()
        if resolved in [earlier.resolve() for earlier in chain]:
            assert asked is not None
            shown = " -> ".join(str(file) for file in (*chain, path))
            self._problems.add(asked, f"include goes round in a circle: {shown}")
            return Document()
        if resolved not in self._loaded:
            self._loaded[resolved] = self._read(path, asked, chain)
        return self._loaded[resolved]

    def _read(self, path: Path, asked: Position | None, chain: tuple[Path, ...]) -> Document:
        text = self._text(path, asked)
        if text is None:
            return Document()
        found = self._problems.count
        root = read_nodes(text, str(path), self._environment, self._problems)
        # What cannot be read gives no values to judge.
        is_readable = self._problems.count == found
        document = Document()
        for pattern, position in included(root, self._problems):
            for file in self._matching(path.parent, pattern, position):
                document = merge(document, self.load(file, position, (*chain, path)))
        return merge(document, read_document(root, self._problems)) if is_readable else document

    def _matching(self, folder: Path, pattern: str, position: Position) -> list[Path]:
        if not has_magic(pattern):
            return [folder / pattern]
        absolute = Path(pattern)
        if absolute.is_absolute():
            folder, pattern = Path(absolute.anchor), str(absolute.relative_to(absolute.anchor))
        files = sorted(folder.glob(pattern))
        if not files:
            self._problems.add(position, f"include {pattern!r} matches no file")
        return files

    def _text(self, path: Path, asked: Position | None) -> str | None:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            if len(data) > MAX_FILE_BYTES:
                reason = f"it is larger than {MAX_FILE_BYTES} bytes"
            else:
                return data.decode("utf-8-sig")
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
        except UnicodeDecodeError as error:
            reason = f"it is no UTF-8 at byte {error.start}"
        if asked is None:
            raise ConfigurationError(f"the configuration {path} cannot be read: {reason}")
        self._problems.add(asked, f"include {str(path)!r} cannot be read: {reason}")
        return None
