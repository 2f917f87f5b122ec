"""Small real media for answers, and the length of sound that comes in."""

from __future__ import annotations

import struct
import zlib
from functools import cache

_GUESSED_BYTES_PER_SECOND = 16_000
"""Of sound in a format that is not read here: 128 kbit/s."""
_WAV_RATE = 24_000


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@cache
def png(serial: int = 0) -> bytes:
    """One pixel, whose colour depends on `serial`."""
    pixel = bytes((0, serial * 37 % 256, serial * 91 % 256, 128))
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(pixel)) + _chunk(b"IEND", b"")


def speech(characters: int, audio_format: str) -> bytes:
    """A hundred bytes for each character; wav and pcm are real silence, the others only begin as their format does."""
    size = 100 * max(1, characters)
    if audio_format == "pcm":
        return bytes(size)
    if audio_format == "wav":
        head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, _WAV_RATE, 48_000, 2, 16)
        return head + struct.pack("<4sI", b"data", size) + bytes(size)
    start = {"mp3": b"\xff\xfb\x90\x00", "opus": b"OggS", "aac": b"\xff\xf1", "flac": b"fLaC"}[audio_format]
    return start + bytes(size)


def video(size: int = 0) -> bytes:
    """The start of an MP4 file, which says what it is, and zeros up to `size`."""
    data = bytes(max(0, size - 32))
    head = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"isom", 512, b"isom", b"mp42")
    return head + struct.pack(">I4s", 8 + len(data), b"mdat") + data


def sound_seconds(data: bytes) -> float:
    """Exact for WAV; else guessed from the size, at least 1."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE" and len(data) >= 44:
        byte_rate: int = struct.unpack_from("<I", data, 28)[0]
        at = data.find(b"data", 12)
        if byte_rate and at >= 0:
            return round((len(data) - at - 8) / byte_rate, 3)
    return max(1.0, round(len(data) / _GUESSED_BYTES_PER_SECOND, 3))
