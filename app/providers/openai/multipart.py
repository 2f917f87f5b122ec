"""multipart/form-data, as files are sent to OpenAI's endpoints (RFC 7578): written here, read by python-multipart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import ValidationError

_MAX_PARTS: Final = 100


@dataclass(frozen=True, slots=True)
class FormFile:
    filename: str
    media_type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Form:
    """`fields` in the order they came; a name may come more than once."""

    fields: list[tuple[str, str]]
    files: dict[str, FormFile]


def encode_form(fields: Iterable[tuple[str, str]], name: str, file: FormFile) -> tuple[bytes, str]:
    """The body, and its content type. The boundary comes of the content, so that the same form is the same bytes."""
    boundary = f"tollgate-{hashlib.sha256(file.content).hexdigest()[:32]}"
    pieces: list[bytes] = []
    for field_name, value in fields:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(field_name)}"\r\n\r\n'
        pieces += [head.encode(), value.encode(), b"\r\n"]
    disposition = f'form-data; name="{_quoted(name)}"; filename="{_quoted(file.filename)}"'
    media_type = file.media_type.replace("\r", "").replace("\n", "")
    head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: {media_type}\r\n\r\n"
    pieces += [head.encode(), file.content, f"\r\n--{boundary}--\r\n".encode()]
    return b"".join(pieces), f"multipart/form-data; boundary={boundary}"


def _quoted(text: str) -> str:
    """As browsers write names: https://html.spec.whatwg.org/#multipart-form-data (checked 2026-11-20)."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def decode_form(body: bytes, content_type: str) -> Form:
    """Raises ValidationError."""
    media_type, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if media_type != b"multipart/form-data" or not boundary:
        raise ValidationError("content-type", content_type, "multipart/form-data with its boundary")
    reader = _PartReader()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.part_begin,
                "on_part_data": reader.part_data,
                "on_part_end": reader.part_end,
                "on_header_field": reader.header_field,
                "on_header_value": reader.header_value,
                "on_header_end": reader.header_end,
                "on_end": reader.end,
            },
        )
        parser.write(body)
        parser.finalize()
    except MultipartParseError as error:
        raise ValidationError("body", body[:40], f"multipart/form-data ({error!s:.100})") from None
    if not reader.has_ended:
        raise ValidationError("body", body[-40:], "whole: its last boundary is missing")
    return Form(reader.fields, reader.files)


class _PartReader:
    def __init__(self) -> None:
        self.fields: list[tuple[str, str]] = []
        self.files: dict[str, FormFile] = {}
        self.has_ended = False
        self._parts = 0
        self._data: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._header_name = b""
        self._header_value = b""

    def part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise ValidationError("body", f"{self._parts} parts", f"of at most {_MAX_PARTS} parts")
        self._data = []
        self._headers = {}

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def part_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = _text(options.get(b"name", b""), "a part's name")
        content = b"".join(self._data)
        if b"filename" in options:
            filename = _text(options[b"filename"], f"{name}'s filename")
            media_type = self._headers.get(b"content-type", b"application/octet-stream")
            self.files[name] = FormFile(filename, _text(media_type, f"{name}'s content type"), content)
        else:
            self.fields.append((name, _text(content, name)))

    def end(self) -> None:
        self.has_ended = True


def _text(data: bytes, field_name: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ValidationError(field_name, data[:40], "UTF-8 text") from None
    if "\0" in text:
        raise ValidationError(field_name, text[:40], "text without NUL characters")
    return text
