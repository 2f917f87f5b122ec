"""Tokens as text: how one is made, hashed and shown."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

PREFIX: Final = "tg_"
MAX_LENGTH: Final = 512
_SHOWN: Final = 8


def generate_token() -> str:
    """ "tg_" and 43 URL-safe characters: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """SHA-256 in hex. A token is random, so a slow hash would only slow each request."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def token_prefix(token: str) -> str:
    """What may be shown of it: at most 8 characters, and never more than a quarter."""
    return token[: min(_SHOWN, len(token) // 4)]


def same_hash(first: str, second: str) -> bool:
    """In a time that does not tell where they differ."""
    return hmac.compare_digest(first, second)
