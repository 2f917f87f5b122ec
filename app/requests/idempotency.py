"""What makes two submissions the same: a digest over what the caller submitted, whatever became of it since."""

from __future__ import annotations

import hashlib

import orjson

from app.catalog.references import format_model_ref, parse_model_ref
from app.catalog.snapshot import Snapshot
from app.errors import ValidationError
from app.providers.operations import encode
from app.requests.records import SubmitRequest


def submission_digest(submission: SubmitRequest, model_ref: str) -> str | None:
    """SHA-256; None without an idempotency key, and for what no JSON can hold.

    Priority, deadline and streaming are no part of it: a repeat comes later, and may be more urgent.
    """
    if submission.idempotency_key is None:
        return None
    given = [
        model_ref,
        submission.messages,
        submission.input,
        submission.parameters,
        submission.metadata,
        submission.fallbacks,
    ]
    try:
        digest = hashlib.sha256(orjson.dumps(given, option=orjson.OPT_SORT_KEYS))
        if submission.request is not None:
            digest.update(encode(submission.request))
    except (TypeError, UnicodeEncodeError):
        return None
    return digest.hexdigest()


def named_ref(snapshot: Snapshot, name: str) -> str | None:
    """The reference of a model that is named by reference or id, also where it cannot be used any more."""
    model = snapshot.model(name)
    if model is not None:
        return snapshot.ref(model)
    try:
        return format_model_ref(*parse_model_ref(name))
    except ValidationError:
        return None
