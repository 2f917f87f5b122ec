"""Reads a multipart/form-data body."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from app.providers.emulator.wire import bad_request

_BOUNDARY = re.compile(rb'boundary="?([^";]+)"?')
_NAME = re.compile(rb'[; ]name="([^"]*)"')
_FILE_NAME = re.compile(rb'filename="([^"]*)"')


@dataclass(slots=True)
class Form:
    fields: dict[str, str] = field(default_factory=dict)
    """Of fields that are given more than once, the last."""
    files: dict[str, bytes] = field(default_factory=dict)


def read_form(content_type: bytes, body: bytes) -> Form:
    """Raises Refused."""
    boundary = _BOUNDARY.search(content_type)
    if not content_type.startswith(b"multipart/form-data") or boundary is None:
        raise bad_request("The body must be multipart/form-data with a boundary.")
    form = Form()
    # Each part ends with CRLF before the next delimiter; the first delimiter has none before it.
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.group(1))[1:]:
        head, separator, data = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if not separator or name is None:
            continue
        if _FILE_NAME.search(head):
            form.files[name.group(1).decode()] = data
        else:
            form.fields[name.group(1).decode()] = data.decode("utf-8", "replace")
    return form
