"""What all of OpenAI's endpoints share: the request's frame, the parameters that go into it, the JSON that comes."""

from __future__ import annotations

from collections.abc import Callable, Set
from functools import lru_cache
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from pydantic import SecretStr

from app.errors import InvalidRequest, InvalidResponse
from app.providers.adapter import ModelCall, WireRequest, WireResponse
from app.providers.openai.errors import raise_for_status

_encode: Final = msgspec.json.Encoder().encode
_Answer = TypeVar("_Answer")


def json_request(call: ModelCall, path: str, body: dict[str, Any], *, accept: str = "application/json") -> WireRequest:
    """A POST to `path` under the base URL, which includes the version: "https://api.openai.com/v1"."""
    return WireRequest(
        url=call.base_url.rstrip("/") + path,
        headers={**authorization(call), "content-type": "application/json", "accept": accept},
        body=_encode(body),
    )


def authorization(call: ModelCall) -> dict[str, str]:
    return {**bearer(call.credential), "x-request-id": call.request_id}


def bearer(credential: SecretStr) -> dict[str, str]:
    return {"authorization": f"Bearer {credential.get_secret_value()}"}


@lru_cache(maxsize=256)
def is_openai_itself(base_url: str) -> bool:
    """OpenAI's own servers, its regional ones and Azure's; anything else is a compatible server."""
    try:
        host = (urlsplit(base_url).hostname or "").lower()
    except ValueError:
        host = ""  # no URL at all: the transport says so
    return host == "api.openai.com" or host.endswith((".api.openai.com", ".openai.azure.com"))


def checked_parameters(call: ModelCall, known: Set[str], reserved: Set[str], endpoint: str) -> dict[str, Any]:
    """A copy. Raises InvalidRequest for a reserved parameter, and for an unknown one unless the call allows it.

    None is a parameter that was not given.
    """
    parameters = {name: value for name, value in call.parameters.items() if value is not None}
    for name in parameters:
        if name in reserved:
            raise InvalidRequest(f"{name} is part of the request and no parameter")
        if name not in known and not call.allows_unknown:
            raise InvalidRequest(f"{name} is no parameter of {endpoint}")
    return parameters


def read_json(response: WireResponse, decode: Callable[[bytes], _Answer], kind: type[_Answer]) -> _Answer:
    """A successful response's body. Raises the error of any other status, and InvalidResponse."""
    raise_for_status(response)
    try:
        if b"\\u0000" in response.body:
            return msgspec.convert(without_nul(msgspec.json.decode(response.body)), kind)
        return decode(response.body)
    except msgspec.ValidationError as error:
        raise invalid_answer(str(error), response) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid_answer("it is no JSON", response) from None


def invalid_answer(reason: str, response: WireResponse) -> InvalidResponse:
    return InvalidResponse(
        f"the provider's answer cannot be used: {reason}"[:500],
        http_status=response.status,
        provider_request_id=response.headers.get("x-request-id"),
    )


def without_nul(value: Any) -> Any:
    """PostgreSQL holds no NUL: it becomes the replacement character."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {without_nul(key): without_nul(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nul(item) for item in value]
    return value
