"""The parts that every connection has."""

from __future__ import annotations

import strawberry


@strawberry.type(description="Where a page stands in its sequence.")
class PageInfo:
    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


@strawberry.type(description="What was deleted.")
class Deleted:
    id: strawberry.ID
