"""A provider's limits in GraphQL: how far they are used now."""

# mypy: disallow-untyped-decorators=False
# strawberry.field answers Any, so that mypy takes it for an untyped decorator.

from __future__ import annotations

from datetime import datetime
from typing import Any

import strawberry
from graphql import GraphQLResolveInfo

from app.limits.records import LimitUsage


@strawberry.type(description="How far a provider's limits are used at this moment.")
class ProviderLimits:
    running: int = strawberry.field(description="Calls under way, of maxParallelRequests.")
    waiting: int = strawberry.field(description="Requests that wait for a permit or for their next attempt.")
    oldest_waiting_at: datetime | None = strawberry.field(description="When the oldest of those was submitted.")
    starts_in_window: int = strawberry.field(description="Starts that count now, of requestsPerMinute.")
    tokens_in_window: int = strawberry.field(description="Of those starts, used or else reserved, of tokensPerMinute.")
    consecutive_failures: int = strawberry.field(description="Of the provider, not of callers, since its last success.")
    circuit_open_until: datetime | None = strawberry.field(
        description="No call starts until then; after it, one at a time until one succeeds. Null: the provider is well."
    )

    @classmethod
    def is_type_of(cls, value: object, _info: GraphQLResolveInfo[Any]) -> bool:
        return isinstance(value, (LimitUsage, cls))
