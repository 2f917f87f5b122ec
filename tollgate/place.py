"""Where the server is that a program means, and with which token it is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import httpx

_LOOK_SECONDS: Final = 2.0


def data_directory() -> Path:
    return Path(os.environ.get("TOLLGATE_DATA_DIR") or ".tollgate")


def find_local_server(data_dir: Path) -> tuple[str, str] | None:
    """The URL and the token of a `tollgate run` or `tollgate serve` that runs here with this data directory."""
    try:
        token = (data_dir / "admin-token").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    host = os.environ.get("TOLLGATE_HOST") or "127.0.0.1"
    if host in ("0.0.0.0", "::"):  # noqa: S104 - told apart, not bound
        host = "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{os.environ.get('TOLLGATE_PORT') or '8000'}"
    try:
        answer = httpx.post(
            f"{url}/graphql",
            json={"query": "{ __typename }"},
            headers={"authorization": f"Bearer {token}"},
            timeout=_LOOK_SECONDS,
            trust_env=False,
        )
    except httpx.TransportError:
        return None
    # Another server may listen there, or a Tollgate with other data: neither knows the token.
    return (url, token) if answer.status_code == 200 and b'"Query"' in answer.content else None
