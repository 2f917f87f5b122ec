"""Call language models through Tollgate: `tollgate.init()("openai:gpt-4o", "Hello").data`."""

from __future__ import annotations

import os
from pathlib import Path

from tollgate import embedded as _embedded
from tollgate import errors
from tollgate.errors import (
    ConfigurationError,
    Conflict,
    Forbidden,
    ModelUnavailable,
    NotFound,
    ProviderError,
    RateLimited,
    RequestRefused,
    ServerUnreachable,
    StillWaiting,
    TollgateError,
    Unauthenticated,
    ValidationError,
)
from tollgate.place import data_directory, find_local_server
from tollgate.records import (
    Answer,
    Chunk,
    CostLine,
    Image,
    Judgement,
    ModelInfo,
    Ranked,
    Request,
    Result,
    Usage,
    UsageLine,
    UsageSummary,
)
from tollgate.service import Model, Service
from tollgate.streams import AsyncStream, Stream

__all__ = [
    "Answer",
    "AsyncStream",
    "Chunk",
    "ConfigurationError",
    "Conflict",
    "CostLine",
    "Forbidden",
    "Image",
    "Judgement",
    "Model",
    "ModelInfo",
    "ModelUnavailable",
    "NotFound",
    "ProviderError",
    "Ranked",
    "RateLimited",
    "Request",
    "RequestRefused",
    "Result",
    "ServerUnreachable",
    "Service",
    "StillWaiting",
    "Stream",
    "TollgateError",
    "Unauthenticated",
    "Usage",
    "UsageLine",
    "UsageSummary",
    "ValidationError",
    "errors",
    "init",
]


def init(
    url: str | None = None,
    token: str | None = None,
    *,
    embedded: bool | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    demo: bool = False,
    timeout_seconds: float = 700,
) -> Service:
    """A service of the first of these that there is:

    1. the server at `url`, or else TOLLGATE_URL, with `token` or TOLLGATE_TOKEN
    2. a server that runs on this machine with this data directory (TOLLGATE_DATA_DIR, or .tollgate)
    3. an embedded one, which is started in the data directory, and ends with the last program that uses it

    `embedded=True` goes straight to the last, and `embedded=False` never does. So does `demo=True`, and the calls then
    go to the built-in provider emulator, which needs no key. `timeout_seconds` bounds the time without any answer.
    Raises ConfigurationError.
    """
    directory = data_directory() if data_dir is None else Path(data_dir)
    if demo and embedded is False:
        raise ConfigurationError("demo=True needs the embedded server", path=("demo",))
    embedded = True if demo else embedded
    if embedded and url is not None:
        raise ConfigurationError("url cannot be given beside embedded=True or demo=True", path=("url",))
    if not embedded:
        url = url or os.environ.get("TOLLGATE_URL") or None
        if url is not None:
            token = token or os.environ.get("TOLLGATE_TOKEN")
            if not token:
                raise ConfigurationError(f"{url} needs a token: give it, or set TOLLGATE_TOKEN", path=("token",))
            return Service(url, token, timeout_seconds=timeout_seconds)
        found = find_local_server(directory)
        if found is not None:
            return Service(found[0], token or found[1], timeout_seconds=timeout_seconds)
        if embedded is False:
            raise ConfigurationError(
                f"no Tollgate server runs here with the data directory {directory}: start one with `tollgate run`, "
                "or set TOLLGATE_URL and TOLLGATE_TOKEN"
            )
    server = _embedded.join(directory, demo=demo)
    return Service(server.url, token or server.token, timeout_seconds=timeout_seconds, embedded=server)
