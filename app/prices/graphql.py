"""Usage and cost in GraphQL, and the estimate of a cost before a call."""

# mypy: disallow-untyped-decorators=False
# strawberry.field answers Any, so that mypy takes it for an untyped decorator.

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import strawberry

from app.api.context import Info
from app.api.mutations import or_none
from app.catalog.resolution import find_model
from app.errors import NotFound
from app.prices import records
from app.prices.calculation import price_usage

strawberry.enum(records.UsageUnit)


@strawberry.type(description="Token counts of a call.")
class Usage:
    input_tokens: int = strawberry.field(description="With the cached ones.")
    output_tokens: int = strawberry.field(description="With the reasoning ones.")
    cache_read_tokens: int = strawberry.field(description="Included in inputTokens.")
    cache_write_tokens: int = strawberry.field(description="Included in inputTokens.")
    estimated: bool = strawberry.field(description="The provider did not say; the counts are an estimate.")


@strawberry.input(description="Token counts, all at least 0.")
class UsageInput:
    input_tokens: int = strawberry.field(default=0, description="With the cached ones.")
    output_tokens: int = strawberry.field(default=0, description="With the reasoning ones.")
    cache_read_tokens: int = strawberry.field(default=0, description="Included in inputTokens.")
    cache_write_tokens: int = strawberry.field(default=0, description="Included in inputTokens.")


@strawberry.type
class CostLine:
    unit: records.UsageUnit
    quantity: Decimal
    unit_price: Decimal | None = strawberry.field(
        description="Per 1,000,000 units. Null only where the quantity is 0 and no price is known."
    )
    amount: Decimal


@strawberry.type(description="What a call came to, exactly: `total` is the sum of the lines.")
class CostReceipt:
    total: Decimal
    currency: str
    lines: list[CostLine]


@strawberry.type
class PricesQuery:
    @strawberry.field(
        graphql_type=CostReceipt,
        description="At the prices of `at`, or else of now. An error where a used unit has no known price.",
    )
    def estimate_cost(
        self, info: Info, model: str, usage: UsageInput, at: datetime | None = strawberry.UNSET
    ) -> CostReceipt:
        snapshot = info.context.catalog
        found = find_model(snapshot, model, info.context.identity.workspace_id)
        moment = or_none(at) or datetime.now(UTC)
        counts = records.Usage(
            usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens
        )
        receipt = price_usage(counts, lambda unit: snapshot.price_at(found.id, unit, moment))
        shown = show_receipt(receipt)
        if shown is None:
            unknown = ", ".join(line.unit for line in receipt.lines if line.amount is None)
            raise NotFound("ModelPrice", f"{snapshot.ref(found)} {unknown} at {moment.isoformat()}", path=("model",))
        return shown


def show_receipt(receipt: records.CostReceipt) -> CostReceipt | None:
    """None where a used unit has no known price: an unknown total is not shown as a smaller one."""
    if receipt.total is None:
        return None
    lines = [
        CostLine(
            unit=line.unit,
            quantity=Decimal(line.quantity),
            unit_price=None if line.price is None else line.price.price_per_million,
            amount=line.amount,
        )
        for line in receipt.lines
        if line.amount is not None
    ]
    return CostReceipt(total=receipt.total, currency=receipt.currency, lines=lines)
