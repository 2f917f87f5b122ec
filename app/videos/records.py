"""A video, be it asked for, being made or made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from app.requests.records import ModelRequestStatus

__all__ = ["ModelRequestStatus", "Video", "VideoFile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """A request for one, without its file.

    `size` and `wanted_seconds` as they were asked for; `seconds` and `cost_total` are those that were billed.
    """

    id: str
    model_ref: str
    status: ModelRequestStatus
    prompt: str
    size: str | None
    wanted_seconds: str | None
    seconds: Decimal | None
    cost_total: Decimal | None
    currency: str | None
    error: dict[str, Any] | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFile:
    """Where the file of a video is: at `url`, or kept here where that is None."""

    provider_id: str
    media_type: str
    url: str | None
    needs_credential: bool
