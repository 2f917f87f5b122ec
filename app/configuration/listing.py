"""Asks a provider for its own list of models, page by page."""

from __future__ import annotations

from typing import Any, Final

import httpx
import orjson
from pydantic import SecretStr

from app.configuration.discovery import MODEL_LISTS, ListedModel, ListRequest
from app.errors import CallTimeout, ConfigurationError, ConnectionFailed, InvalidRequest, InvalidResponse
from app.providers.http_errors import error_for_status

TIMEOUT_SECONDS: Final = 30.0
MAX_PAGES: Final = 100
MAX_PAGE_BYTES: Final = 64 * 1024 * 1024


async def list_models(adapter: str, base_url: str, credential: SecretStr) -> list[ListedModel]:
    """Raises ProviderError, and ConfigurationError for a protocol that has no list."""
    protocol = MODEL_LISTS.get(adapter)
    if protocol is None:
        raise ConfigurationError(f"a provider of the adapter {adapter!r} cannot be asked for its models")
    models: list[ListedModel] = []
    cursor: str | None = None
    seen: set[str] = set()
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False) as client:
        for _ in range(MAX_PAGES):
            request = protocol.request(base_url.rstrip("/"), credential, cursor)
            page = protocol.parse(await _get(client, request))
            models += page.models
            cursor = page.cursor
            if cursor is None:
                return models
            if cursor in seen:
                raise InvalidResponse("the provider's list of models cannot be used: its pages go round in a circle")
            seen.add(cursor)
    raise InvalidResponse(f"the provider's list of models cannot be used: it has more than {MAX_PAGES} pages")


async def _get(client: httpx.AsyncClient, request: ListRequest) -> dict[str, Any]:
    try:
        async with client.stream("GET", request.url, headers=dict(request.headers)) as response:
            data = bytearray()
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > MAX_PAGE_BYTES:
                    raise InvalidResponse(f"the provider's list of models is larger than {MAX_PAGE_BYTES} bytes")
    except httpx.TimeoutException:
        raise CallTimeout(f"the provider did not list its models within {TIMEOUT_SECONDS:g} s") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise InvalidRequest("the provider's base URL cannot be used") from None
    except httpx.DecodingError:
        raise InvalidResponse("the provider's list of models cannot be decoded") from None
    except httpx.HTTPError as error:
        raise ConnectionFailed(f"the connection to the provider failed: {type(error).__name__}") from None
    if not 200 <= response.status_code < 300:
        raise error_for_status(response.status_code, _message(bytes(data)), headers=dict(response.headers.items()))
    body = _json(bytes(data))
    if not isinstance(body, dict):
        raise InvalidResponse("the provider's list of models cannot be used: it is no JSON object")
    return body


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _message(data: bytes) -> str:
    """Every protocol here has it at `error.message`."""
    body = _json(data)
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else ""
