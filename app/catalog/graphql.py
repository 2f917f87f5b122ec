"""The catalog in GraphQL: views of the snapshot's records, and the mutations of providers and models.

The types are read through attributes of the records themselves; methods get the record as `self`.
"""

# mypy: disallow-untyped-decorators=False
# strawberry.field answers Any, so that mypy takes it for an untyped decorator.

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, cast

import strawberry
from graphql import GraphQLResolveInfo

from app.access.records import Permission
from app.api.compiled import READS_CLOCK, READS_SNAPSHOT
from app.api.context import Info
from app.api.errors import Conflict, Forbidden, ModelUnavailable, NotFound, ValidationError
from app.api.loaders import loader
from app.api.mutations import change, or_none
from app.api.pagination import Deleted, PageInfo
from app.api.scalars import JSON
from app.catalog import records
from app.catalog.inputs import (
    CreateLlmModelInput,
    CreateLlmProviderInput,
    LlmModelFilter,
    LlmModelOrder,
    UpdateLlmModelInput,
    UpdateLlmProviderInput,
)
from app.catalog.pagination import Page
from app.catalog.search import search_page
from app.catalog.select import models_page
from app.catalog.snapshots import SnapshotHolder
from app.errors import ValidationError as Refused

if TYPE_CHECKING:
    from app.limits.graphql import ProviderLimits


@strawberry.type(description="An LLM API, and the limits that hold for all calls of it.")
class LlmProvider:
    id: strawberry.ID
    name: str = strawberry.field(description='The key in model references: "openai".')
    display_name: str
    adapter: str = strawberry.field(description="The wire protocol that it speaks.")
    base_url: str | None
    max_parallel_requests: int
    requests_per_minute: int = strawberry.field(description="Starts in any sliding 60 seconds.")
    tokens_per_minute: int | None = strawberry.field(description="Null: tokens are not limited.")
    is_enabled: bool
    created_at: datetime
    updated_at: datetime

    @strawberry.field(graphql_type=list[Annotated["LlmModel", strawberry.lazy("app.catalog.graphql")]])
    def models(self, info: Info) -> tuple[records.LlmModel, ...]:
        return info.context.snapshot.models_of(self.id)

    @strawberry.field(
        graphql_type=Annotated["ProviderLimits", strawberry.lazy("app.limits.graphql")] | None,
        description="Read anew each time. Null where the provider has been deleted meanwhile.",
    )
    async def limits(self, info: Info) -> object:
        return await loader(info.context, "limits", info.context.services.limits.usage_of, lambda: None).load(self.id)

    @classmethod
    def is_type_of(cls, value: object, _info: GraphQLResolveInfo[Any]) -> bool:
        return isinstance(value, (records.LlmProvider, cls))


@strawberry.type(description="What a unit costs from a time on. It is followed by others, never changed.")
class ModelPrice:
    id: strawberry.ID
    unit: records.UsageUnit
    price_per_million: Decimal | None = strawberry.field(
        description="Per 1,000,000 units; null where it is not known from then on."
    )
    currency: str
    effective_at: datetime

    @classmethod
    def is_type_of(cls, value: object, _info: GraphQLResolveInfo[Any]) -> bool:
        return isinstance(value, (records.ModelPrice, cls))


@strawberry.type(description="A model of a provider, with its current list price.")
class LlmModel:
    id: strawberry.ID
    provider_id: strawberry.ID
    model_id: str = strawberry.field(description='The name that the provider knows it by: "gpt-4o".')
    display_name: str
    description: str | None
    model_type: records.LlmModelType
    capabilities: list[str]
    context_window: int | None
    max_output_tokens: int | None
    cost_input_per_million: Decimal | None = strawberry.field(
        description="USD per 1,000,000 input tokens; null where the price is not known."
    )
    cost_output_per_million: Decimal | None = strawberry.field(
        description="USD per 1,000,000 output tokens; null where the price is not known."
    )
    status: records.LlmModelStatus
    is_default: bool
    parameter_rules: JSON | None = strawberry.field(
        description="What parameters it takes, within what bounds. Null: the protocol's own."
    )
    allows_unknown_parameters: bool = strawberry.field(
        description="Whether parameters without a rule, or that the protocol does not know, are passed on."
    )
    connect_timeout_seconds: float | None = strawberry.field(
        description="Null: as the process is configured, as for the next two."
    )
    read_timeout_seconds: float | None = strawberry.field(description="Between two pieces of an answer.")
    total_timeout_seconds: float | None
    created_at: datetime
    updated_at: datetime

    @strawberry.field(description='The reference: "openai:gpt-4o".')
    def ref(self, info: Info) -> str:
        return info.context.snapshot.ref(_record(self))

    @strawberry.field(graphql_type=LlmProvider)
    def provider(self, info: Info) -> records.LlmProvider:
        return info.context.snapshot.provider_of(_record(self))

    @strawberry.field(
        graphql_type=list[ModelPrice],
        metadata=READS_CLOCK,
        description="The prices in force now, one for each unit that has ever had one.",
    )
    def prices(self, info: Info) -> list[records.ModelPrice]:
        snapshot, now = info.context.snapshot, datetime.now(UTC)
        prices = (snapshot.price_at(self.id, unit, now) for unit in records.UsageUnit)
        return [price for price in prices if price is not None]

    @classmethod
    def is_type_of(cls, value: object, _info: GraphQLResolveInfo[Any]) -> bool:
        return isinstance(value, (records.LlmModel, cls))


@strawberry.type
class LlmModelEdge:
    node: LlmModel
    cursor: str


@strawberry.type(description="A page of models.")
class LlmModelConnection:
    nodes: list[LlmModel]
    total_count: int = strawberry.field(description="Of the whole sequence.")

    @strawberry.field(graphql_type=list[LlmModelEdge])
    def edges(self) -> list[LlmModelEdge]:
        page = cast(Page[Any], self)
        return [LlmModelEdge(node=node, cursor=cursor) for node, cursor in zip(page.nodes, page.cursors, strict=True)]

    @strawberry.field(graphql_type=PageInfo)
    def page_info(self) -> object:
        return self


@strawberry.type(description="A state of the catalog; it rises with every change.")
class CatalogRevision:
    revision: int


CreateLlmProviderResult = Annotated[
    LlmProvider | ValidationError | Conflict | Forbidden, strawberry.union("CreateLlmProviderResult")
]
UpdateLlmProviderResult = Annotated[
    LlmProvider | ValidationError | NotFound | Conflict | Forbidden, strawberry.union("UpdateLlmProviderResult")
]
DeleteLlmProviderResult = Annotated[
    Deleted | NotFound | Conflict | Forbidden, strawberry.union("DeleteLlmProviderResult")
]
CreateLlmModelResult = Annotated[
    LlmModel | ValidationError | NotFound | Conflict | Forbidden, strawberry.union("CreateLlmModelResult")
]
UpdateLlmModelResult = Annotated[
    LlmModel | ValidationError | NotFound | Conflict | Forbidden, strawberry.union("UpdateLlmModelResult")
]
DeprecateLlmModelResult = Annotated[
    LlmModel | NotFound | Conflict | Forbidden, strawberry.union("DeprecateLlmModelResult")
]
ReactivateLlmModelResult = Annotated[
    LlmModel | NotFound | Conflict | Forbidden, strawberry.union("ReactivateLlmModelResult")
]
SetDefaultLlmModelResult = Annotated[
    LlmModel | NotFound | Conflict | ModelUnavailable | Forbidden, strawberry.union("SetDefaultLlmModelResult")
]
DeleteLlmModelResult = Annotated[Deleted | NotFound | Conflict | Forbidden, strawberry.union("DeleteLlmModelResult")]


@strawberry.type
class CatalogQuery:
    @strawberry.field(graphql_type=list[LlmProvider], metadata=READS_SNAPSHOT)
    def llm_providers(self, info: Info, is_enabled: bool | None = strawberry.UNSET) -> list[records.LlmProvider]:
        wanted = or_none(is_enabled)
        return [
            provider
            for provider in info.context.catalog.providers
            if provider.workspace_id == info.context.identity.workspace_id
            and (wanted is None or provider.is_enabled is wanted)
        ]

    @strawberry.field(graphql_type=LlmProvider | None, metadata=READS_SNAPSHOT)
    def llm_provider(
        self, info: Info, id: strawberry.ID | None = strawberry.UNSET, name: str | None = strawberry.UNSET
    ) -> records.LlmProvider | None:
        context = info.context
        by_id, by_name = or_none(id), or_none(name)
        _exactly_one("id", by_id, "name", by_name)
        if by_name is not None:
            return context.catalog.provider_by_name(context.identity.workspace_id, by_name)
        provider = context.catalog.provider(by_id)
        return provider if provider and provider.workspace_id == context.identity.workspace_id else None

    @strawberry.field(graphql_type=LlmModelConnection, metadata=READS_SNAPSHOT)
    def llm_models(
        self,
        info: Info,
        filter: LlmModelFilter | None = strawberry.UNSET,
        order_by: LlmModelOrder | None = strawberry.UNSET,
        first: int | None = 50,
        after: str | None = strawberry.UNSET,
    ) -> Page[records.LlmModel]:
        return models_page(
            info.context.catalog,
            LlmModelFilter.to_record(or_none(filter)),
            LlmModelOrder.to_record(or_none(order_by)),
            first=50 if first is None else first,
            after=or_none(after),
            workspace_id=info.context.identity.workspace_id,
        )

    @strawberry.field(
        graphql_type=LlmModel | None,
        metadata=READS_SNAPSHOT,
        description='By id, or by ref: "openai:gpt-4o" or "#/Model/openai/gpt-4o".',
    )
    def llm_model(
        self, info: Info, id: strawberry.ID | None = strawberry.UNSET, ref: str | None = strawberry.UNSET
    ) -> records.LlmModel | None:
        context = info.context
        by_id, by_ref = or_none(id), or_none(ref)
        _exactly_one("id", by_id, "ref", by_ref)
        if by_ref is not None:
            return context.catalog.model_by_ref(by_ref, context.identity.workspace_id, "ref")
        model = context.catalog.model(by_id)
        return model if model and model.workspace_id == context.identity.workspace_id else None

    @strawberry.field(
        graphql_type=LlmModelConnection,
        metadata=READS_SNAPSHOT,
        description="The models that hold all words of the query in reference, name or description, best first.",
    )
    def search_models(
        self, info: Info, query: str, first: int | None = 20, after: str | None = strawberry.UNSET
    ) -> Page[records.LlmModel]:
        return search_page(
            info.context.catalog,
            query,
            first=20 if first is None else first,
            after=or_none(after),
            workspace_id=info.context.identity.workspace_id,
        )


@strawberry.type
class CatalogMutation:
    @strawberry.mutation(graphql_type=CreateLlmProviderResult)
    async def create_llm_provider(self, info: Info, input: CreateLlmProviderInput) -> object:
        catalog, workspace = info.context.services.catalog, info.context.identity.workspace_id
        return await change(
            info,
            Permission.MANAGE_CATALOG,
            lambda: catalog.create_provider(input.to_record(), workspace_id=workspace),
        )

    @strawberry.mutation(graphql_type=UpdateLlmProviderResult)
    async def update_llm_provider(self, info: Info, id: strawberry.ID, input: UpdateLlmProviderInput) -> object:
        catalog, workspace = info.context.services.catalog, info.context.identity.workspace_id
        return await change(
            info,
            Permission.MANAGE_CATALOG,
            lambda: catalog.update_provider(id, input.to_record(), workspace_id=workspace),
        )

    @strawberry.mutation(graphql_type=DeleteLlmProviderResult)
    async def delete_llm_provider(self, info: Info, id: strawberry.ID) -> object:
        async def delete() -> Deleted:
            context = info.context
            await context.services.catalog.delete_provider(id, workspace_id=context.identity.workspace_id)
            return Deleted(id=id)

        return await change(info, Permission.MANAGE_CATALOG, delete)

    @strawberry.mutation(graphql_type=CreateLlmModelResult)
    async def create_llm_model(self, info: Info, input: CreateLlmModelInput) -> object:
        catalog, workspace = info.context.services.catalog, info.context.identity.workspace_id
        return await change(
            info, Permission.MANAGE_CATALOG, lambda: catalog.create_model(input.to_record(), workspace_id=workspace)
        )

    @strawberry.mutation(
        graphql_type=UpdateLlmModelResult, description="`modelId` and the provider of a model are for life."
    )
    async def update_llm_model(self, info: Info, id: strawberry.ID, input: UpdateLlmModelInput) -> object:
        catalog, workspace = info.context.services.catalog, info.context.identity.workspace_id
        return await change(
            info,
            Permission.MANAGE_CATALOG,
            lambda: catalog.update_model(id, input.to_record(), workspace_id=workspace),
        )

    @strawberry.mutation(
        graphql_type=DeprecateLlmModelResult,
        description="A deprecated model stays readable; it is no default and cannot be submitted to.",
    )
    async def deprecate_llm_model(self, info: Info, id: strawberry.ID) -> object:
        catalog, workspace = info.context.services.catalog, info.context.identity.workspace_id
        return await change(
            info, Permission.MANAGE_CATALOG, lambda: catalog.deprecate_model(id, workspace_id=workspace)
        )

    @strawberry.mutation(graphql_type=ReactivateLlmModelResult)
    async def reactivate_llm_model(self, info: Info, id: strawberry.ID) -> object:
        catalog, workspace = info.context.services.catalog, info.context.identity.workspace_id
        return await change(
            info, Permission.MANAGE_CATALOG, lambda: catalog.reactivate_model(id, workspace_id=workspace)
        )

    @strawberry.mutation(
        graphql_type=SetDefaultLlmModelResult, description="The provider's default until now is none any more."
    )
    async def set_default_llm_model(self, info: Info, id: strawberry.ID) -> object:
        catalog, workspace = info.context.services.catalog, info.context.identity.workspace_id
        return await change(
            info, Permission.MANAGE_CATALOG, lambda: catalog.set_default_model(id, workspace_id=workspace)
        )

    @strawberry.mutation(graphql_type=DeleteLlmModelResult)
    async def delete_llm_model(self, info: Info, id: strawberry.ID) -> object:
        async def delete() -> Deleted:
            context = info.context
            await context.services.catalog.delete_model(id, workspace_id=context.identity.workspace_id)
            return Deleted(id=id)

        return await change(info, Permission.MANAGE_CATALOG, delete)


@strawberry.type
class CatalogSubscription:
    @strawberry.subscription(description="The revision that the catalog has now, then each that it comes to.")
    async def catalog_changed(self, info: Info) -> AsyncIterator[CatalogRevision]:
        async for revision in _revisions(info.context.services.snapshots):
            info.context.refresh_snapshot()
            yield CatalogRevision(revision=revision)


async def _revisions(snapshots: SnapshotHolder) -> AsyncIterator[int]:
    """A burst of changes is one revision: the newest."""
    changed = asyncio.Event()
    forget = snapshots.on_change(lambda _snapshot: changed.set())
    try:
        seen = snapshots.current.revision
        yield seen
        while True:
            await changed.wait()
            changed.clear()
            if snapshots.current.revision > seen:
                seen = snapshots.current.revision
                yield seen
    finally:
        forget()


def _record(model: LlmModel) -> records.LlmModel:
    return cast(records.LlmModel, model)


def _exactly_one(first: str, first_value: object, second: str, second_value: object) -> None:
    if (first_value is None) == (second_value is None):
        found = "neither" if first_value is None else "both"
        raise Refused(first, found, f"given, or else {second}, and not both")
