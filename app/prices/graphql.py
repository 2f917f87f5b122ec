"""Usage and cost in GraphQL, and the estimate of a cost before a call."""

# mypy: disallow-untyped-decorators=False
# strawberry.field answers Any, so that mypy takes it for an untyped decorator.

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import strawberry

from app.access.records import Permission
from app.api.context import Info
from app.api.errors import Conflict, Forbidden, NotFound, ValidationError
from app.api.mutations import change, or_none
from app.catalog.graphql import ModelPrice
from app.prices import records, service


@strawberry.type(description="What a call used.")
class Usage:
    input_tokens: int = strawberry.field(description="With the cached ones.")
    output_tokens: int = strawberry.field(description="With the reasoning ones.")
    cache_read_tokens: int = strawberry.field(description="Included in inputTokens.")
    cache_write_tokens: int = strawberry.field(description="Included in inputTokens.")
    reasoning_tokens: int = strawberry.field(description="Included in outputTokens.")
    images: int = strawberry.field(description="Generated.")
    characters: int = strawberry.field(description="Spoken.")
    seconds: Decimal = strawberry.field(description="Of audio heard or of video generated.")
    searches: int = strawberry.field(description="Queries that documents were ranked for.")
    estimated: bool = strawberry.field(description="The provider did not say; the counts are an estimate.")


@strawberry.input(description="What a call may use, all at least 0.")
class UsageInput:
    input_tokens: int = strawberry.field(default=0, description="With the cached ones.")
    output_tokens: int = strawberry.field(default=0, description="With the reasoning ones.")
    cache_read_tokens: int = strawberry.field(default=0, description="Included in inputTokens.")
    cache_write_tokens: int = strawberry.field(default=0, description="Included in inputTokens.")
    reasoning_tokens: int = strawberry.field(default=0, description="Included in outputTokens.")
    images: int = strawberry.field(default=0, description="Generated.")
    characters: int = strawberry.field(default=0, description="Spoken.")
    seconds: Decimal = strawberry.field(
        default=Decimal(0), description="Of audio heard or of video generated, with at most 2 decimals."
    )
    searches: int = strawberry.field(default=0, description="Queries that documents are ranked for.")


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
        description="At the prices of `at`, or else of now. PRICE_UNKNOWN where a used unit has no known price.",
    )
    def estimate_cost(
        self, info: Info, model: str, usage: UsageInput, at: datetime | None = strawberry.UNSET
    ) -> CostReceipt:
        return show_receipt(
            service.estimate_cost(
                info.context.catalog,
                model,
                records.Usage(**vars(usage)),
                workspace_id=info.context.identity.workspace_id,
                at=or_none(at) or datetime.now(UTC),
            )
        )


SetModelPriceResult = Annotated[
    ModelPrice | ValidationError | NotFound | Conflict | Forbidden, strawberry.union("SetModelPriceResult")
]


@strawberry.type
class PricesMutation:
    @strawberry.mutation(
        graphql_type=SetModelPriceResult,
        description="Appends a dated price, from now on or from `effectiveAt` on; no price is ever changed. Not for "
        "INPUT_TOKENS and OUTPUT_TOKENS, whose list prices updateLlmModel sets. Without a pricePerMillion it is not "
        "known from then on.",
    )
    async def set_model_price(
        self,
        info: Info,
        model_id: strawberry.ID,
        unit: records.UsageUnit,
        price_per_million: Decimal | None = strawberry.UNSET,
        effective_at: datetime | None = strawberry.UNSET,
    ) -> object:
        catalog, workspace = info.context.services.catalog, info.context.identity.workspace_id
        return await change(
            info,
            Permission.MANAGE_CATALOG,
            lambda: catalog.set_price(
                model_id, unit, or_none(price_per_million), effective_at=or_none(effective_at), workspace_id=workspace
            ),
        )


def show_receipt(receipt: records.CostReceipt) -> CostReceipt:
    """Of a receipt whose total is known, and so each amount."""
    assert receipt.total is not None
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
