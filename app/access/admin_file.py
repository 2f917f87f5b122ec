"""The file that keeps the first admin token: readable by its owner only, whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from app.access.tokens import PREFIX
from app.errors import ConfigurationError

_NAME = "admin-token"


def path_in(data_dir: Path) -> Path:
    return data_dir / _NAME


def read(path: Path) -> str | None:
    """None where there is no file, or no token in it."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the admin token's file {path} cannot be read: {_reason(error)}") from None
    return text if text.startswith(PREFIX) else None


def write(path: Path, token: str) -> None:
    """Raises ConfigurationError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(token + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise ConfigurationError(f"the admin token's file {path} cannot be written: {_reason(error)}") from None


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not ASCII"
