"""What the wire protocols share: reading a provider's JSON, its counts and errors, and the parameters of a call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from app.errors import InvalidRequest, InvalidResponse
from app.providers.adapter import ModelCall, WireResponse
from app.providers.messages import Image

T = TypeVar("T")

Count = Annotated[int, Meta(ge=0, lt=2**30)]
"""Of tokens. Bounded, so that sums fit the columns that hold them."""

_DATA_URL: Final = re.compile(r"data:(?P<media_type>[\w.+-]+/[\w.+-]+);base64,(?P<data>[A-Za-z0-9+/=]*)")
_MAX_TEXT_ERROR: Final = 500
# The escape itself, and not an escaped backslash before the letters "u0000".
_NUL: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
_NUL_BYTES: Final = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


def decode_answer(
    decoder: msgspec.json.Decoder[T], body: bytes | str, *, status: int | None = None, request_id: str | None = None
) -> T:
    """Raises InvalidResponse. PostgreSQL holds no NUL: it becomes the replacement character."""
    if isinstance(body, str):
        body = _NUL.sub(r"\1\\ufffd", body)
    elif b"\\u0000" in body:
        body = _NUL_BYTES.sub(rb"\1\\ufffd", body)
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        reason = "it nests too deeply" if isinstance(error, RecursionError) else str(error)[:_MAX_TEXT_ERROR]
        raise InvalidResponse(
            f"the provider's answer cannot be used: {reason}", http_status=status, provider_request_id=request_id
        ) from None


def object_text(value: Mapping[str, Any]) -> str:
    """A JSON object as text, as tool arguments have it."""
    return msgspec.json.encode(value).decode()


def object_from_text(text: str) -> dict[str, Any] | None:
    """The JSON object that the text is; an empty text is an empty object; None where it is anything else."""
    if not text.strip():
        return {}
    try:
        value = msgspec.json.decode(text.encode("utf-8", "replace"))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def plain_error_text(response: WireResponse) -> str:
    """A body that is no error object of the protocol, as a proxy or a load balancer writes it."""
    return response.body[:_MAX_TEXT_ERROR].decode(errors="replace").replace("\0", "\ufffd")


def image_data(image: Image) -> tuple[str, str] | None:
    """Media type and base64 data of an image that is given itself, be it as a data URL."""
    if image.data is not None:
        return image.media_type or "image/png", image.data
    match = _DATA_URL.fullmatch(image.url or "")
    return (match["media_type"], match["data"]) if match else None


def refused(field: str, reason: str) -> InvalidRequest:
    """What cannot be expressed is an error before the call, which names the field."""
    return InvalidRequest(f"{field} {reason}")


class Parameters:
    """The parameters of one call, each taken once; what nobody took is refused or passed on. Null means not given."""

    def __init__(self, call: ModelCall, protocol: str) -> None:
        self._left = {name: value for name, value in call.parameters.items() if value is not None}
        self._allows_unknown = call.allows_unknown
        self._protocol = protocol

    def take(self, name: str) -> Any:
        return self._left.pop(name, None)

    def take_integer(self, name: str) -> int | None:
        value = self.take(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise refused(f"parameters.{name}", f"must be an integer, not {value!r:.80}")
        return value

    def take_number(self, name: str, maximum: float) -> float | None:
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or value > maximum:
            raise refused(
                f"parameters.{name}", f"must be a number up to {maximum:g} for {self._protocol}, not {value!r:.80}"
            )
        return value

    def take_texts(self, name: str) -> list[str] | None:
        """A text or a list of them."""
        value = self.take(name)
        if value is None or isinstance(value, str):
            return None if value is None else [value]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise refused(f"parameters.{name}", f"must be a text or a list of texts, not {value!r:.80}")
        return value

    def take_choice(self, name: str, choices: Mapping[str, Any]) -> Any:
        """What the table has for the value."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, str) or value not in choices:
            known = ", ".join(choices)
            raise refused(f"parameters.{name}", f"must be one of {known} for {self._protocol}, not {value!r:.80}")
        return choices[value]

    def copy(self, names: Mapping[str, str], into: dict[str, Any]) -> None:
        """Those that the protocol has alike, under its own names."""
        for name, wire_name in names.items():
            if (value := self.take(name)) is not None:
                into[wire_name] = value

    def refuse_all(self, neutral: Mapping[str, Any]) -> None:
        """Known parameters that the protocol has no word for, unless they have the value that means nothing."""
        for name, nothing in neutral.items():
            value = self.take(name)
            if value is not None and value != nothing:
                raise refused(f"parameters.{name}", f"cannot be expressed in {self._protocol}")

    def rest(self) -> dict[str, Any]:
        if self._left and not self._allows_unknown:
            raise refused(f"parameters.{next(iter(self._left))}", f"is not known to {self._protocol}")
        return self._left
