"""What was used over a time, in GraphQL."""

# mypy: disallow-untyped-decorators=False
# strawberry.field answers Any, so that mypy takes it for an untyped decorator.

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated

import strawberry

from app.access.records import Permission
from app.api.context import Info
from app.api.mutations import or_none
from app.usage import records


@strawberry.type(description="All that was used of one unit.")
class UsageLine:
    unit: records.UsageUnit
    quantity: Decimal
    amount: Decimal = strawberry.field(description="Without what had no known price when it was used.")


@strawberry.type(description="What the ledger's lines of a time come to.")
class UsageSummary:
    requests: int = strawberry.field(description="Those that were charged.")
    calls: int = strawberry.field(description="Of providers; a request that was tried again may have several.")
    estimated_calls: int = strawberry.field(description="Their counts are estimates: the provider gave none.")
    unpriced_calls: int = strawberry.field(
        description="They used a unit whose price was not known; what they came to is in no amount."
    )
    total: Decimal = strawberry.field(description="The exact sum of the lines' amounts.")
    currency: str
    lines: list[UsageLine] = strawberry.field(description="Input tokens are here without the cached ones.")


@strawberry.type
class UsageQuery:
    @strawberry.field(
        graphql_type=UsageSummary,
        description="Of all models, or of one, by id or reference. What was charged at `from` counts, at `to` not.",
    )
    async def usage_summary(
        self,
        info: Info,
        model: str | None = strawberry.UNSET,
        since: Annotated[datetime | None, strawberry.argument(name="from")] = strawberry.UNSET,
        until: Annotated[datetime | None, strawberry.argument(name="to")] = strawberry.UNSET,
    ) -> records.UsageSummary:
        context = info.context
        context.require(Permission.READ_REQUESTS)
        return await context.services.usage.summarize(
            workspace_id=context.identity.workspace_id,
            model=or_none(model),
            since=or_none(since),
            until=or_none(until),
        )
