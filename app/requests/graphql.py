"""Requests in GraphQL: submitted, cancelled, read from SQL in batches, and followed as they change."""

# mypy: disallow-untyped-decorators=False
# strawberry.field answers Any, so that mypy takes it for an untyped decorator.

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, cast

import strawberry
from graphql import GraphQLResolveInfo

from app.access.records import Permission
from app.api.context import Info
from app.api.errors import Conflict, Forbidden, ModelUnavailable, NotFound, ValidationError
from app.api.mutations import change, or_none
from app.api.pagination import PageInfo
from app.api.scalars import JSON
from app.catalog.graphql import LlmModel, LlmProvider
from app.catalog.pagination import check_first, decode_cursor, encode_cursor
from app.catalog.records import LlmModel as LlmModelRecord
from app.catalog.records import LlmProvider as LlmProviderRecord
from app.errors import NotFound as Missing
from app.prices.graphql import CostLine, CostReceipt, Usage
from app.requests import records
from app.requests.inputs import ModelRequestFilter, SubmitRequestInput, batch_records
from app.requests.loaders import attempts_loader, ledger_loader

_CURSOR = "requests"


@strawberry.type(description="Why a request or an attempt failed.")
class RequestError:
    code: str = strawberry.field(description="Stable and machine-readable.")
    message: str
    retryable: bool = strawberry.field(description="Whether it is of a kind that another attempt may not meet.")
    http_status: int | None


@strawberry.type(description="One call of a provider, shown when it has ended.")
class RequestAttempt:
    number: int
    status: records.RequestAttemptStatus
    model_ref: str = strawberry.field(description="The model that was called: the request's own or a fallback.")
    worker_id: str
    started_at: datetime
    first_chunk_at: datetime | None = strawberry.field(description="Of a streamed answer.")
    finished_at: datetime
    response_model: str | None
    provider_request_id: str | None
    finish_reason: str | None
    http_status: int | None

    @strawberry.field(graphql_type=RequestError | None)
    def error(self) -> RequestError | None:
        return _error(cast(Any, self).error)


@strawberry.type(description="A call to make, and what came of it.")
class ModelRequest:
    id: strawberry.ID
    status: records.ModelRequestStatus
    operation: records.ModelOperation
    model_ref: str = strawberry.field(description="Kept when the model is deleted. After a fallback, the fallback's.")
    is_streamed: bool = strawberry.field(description="Whether requestOutput shows the answer while it comes.")
    priority: int
    idempotency_key: str | None
    deadline: datetime | None
    metadata: JSON
    parameters: JSON
    output: JSON | None
    output_text: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @strawberry.field(graphql_type=LlmModel | None, description="Null where it has been deleted since.")
    def model(self, info: Info) -> LlmModelRecord | None:
        model_id = _record(self).model_id
        return None if model_id is None else info.context.snapshot.model(model_id)

    @strawberry.field(graphql_type=LlmProvider | None, description="Null where it has been deleted since.")
    def provider(self, info: Info) -> LlmProviderRecord | None:
        return info.context.snapshot.provider(_record(self).provider_id)

    @strawberry.field(graphql_type=list[LlmModel], description="The models that are left to go on with, in this order.")
    def fallbacks(self, info: Info) -> list[LlmModelRecord]:
        models = map(info.context.snapshot.model, _record(self).fallback_model_ids)
        return [model for model in models if model is not None]

    @strawberry.field(graphql_type=Usage | None, description="Null until a call has ended.")
    def usage(self) -> Usage | None:
        row = _record(self)
        if row.input_tokens is None or row.output_tokens is None:
            return None
        return Usage(
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            cache_read_tokens=row.cache_read_tokens or 0,
            cache_write_tokens=row.cache_write_tokens or 0,
            reasoning_tokens=row.reasoning_tokens or 0,
            images=row.images or 0,
            characters=row.characters or 0,
            seconds=row.seconds or Decimal(0),
            searches=row.searches or 0,
            estimated=bool(row.usage_estimated),
        )

    @strawberry.field(
        graphql_type=CostReceipt | None, description="Null until a call has ended, and where a price was not known."
    )
    async def cost(self, info: Info) -> CostReceipt | None:
        row = _record(self)
        if row.cost_total is None or row.currency is None:
            return None
        lines = [
            CostLine(unit=entry.unit, quantity=entry.quantity, unit_price=entry.price_per_million, amount=entry.amount)
            for entry in await ledger_loader(info.context).load(row.id)
            if entry.amount is not None
        ]
        return CostReceipt(total=row.cost_total, currency=row.currency, lines=lines)

    @strawberry.field(graphql_type=RequestError | None)
    def error(self) -> RequestError | None:
        return _error(_record(self).error)

    @strawberry.field(graphql_type=list[RequestAttempt], description="Those that have ended, in order.")
    async def attempts(self, info: Info) -> list[records.RequestAttempt]:
        return await attempts_loader(info.context).load(_record(self).id)

    @classmethod
    def is_type_of(cls, value: object, _info: GraphQLResolveInfo[Any]) -> bool:
        return isinstance(value, (records.ModelRequest, cls))


@strawberry.type
class ModelRequestEdge:
    node: ModelRequest
    cursor: str


@dataclass(frozen=True, slots=True)
class _Page:
    nodes: list[records.ModelRequest]
    has_next_page: bool
    has_previous_page: bool
    where: records.RequestFilter

    @property
    def start_cursor(self) -> str | None:
        return _cursor(self.nodes[0]) if self.nodes else None

    @property
    def end_cursor(self) -> str | None:
        return _cursor(self.nodes[-1]) if self.nodes else None


@strawberry.type(description="A page of requests, newest first.")
class ModelRequestConnection:
    nodes: list[ModelRequest]

    @strawberry.field(graphql_type=list[ModelRequestEdge])
    def edges(self) -> list[ModelRequestEdge]:
        nodes: list[Any] = cast(_Page, self).nodes
        return [ModelRequestEdge(node=node, cursor=_cursor(node)) for node in nodes]

    @strawberry.field(graphql_type=PageInfo)
    def page_info(self) -> object:
        return self

    @strawberry.field(graphql_type=int, description="Of the whole sequence; counted where it is asked for.")
    async def total_count(self, info: Info) -> int:
        context = info.context
        page = cast(_Page, self)
        return await context.services.requests.count(page.where, workspace_id=context.identity.workspace_id)


@strawberry.type(description="What submitRequests has written, in the order of its inputs.")
class SubmittedRequests:
    ids: list[strawberry.ID]

    @strawberry.field(graphql_type=list[ModelRequest])
    async def requests(self, info: Info) -> list[records.ModelRequest]:
        context = info.context
        found = await context.services.requests.get_many(self.ids, workspace_id=context.identity.workspace_id)
        return [found[id] for id in self.ids]


SubmitRequestResult = Annotated[
    ModelRequest | ValidationError | NotFound | Conflict | ModelUnavailable | Forbidden,
    strawberry.union("SubmitRequestResult"),
]
SubmitRequestsResult = Annotated[
    SubmittedRequests | ValidationError | NotFound | Conflict | ModelUnavailable | Forbidden,
    strawberry.union("SubmitRequestsResult"),
]
CancelRequestResult = Annotated[ModelRequest | NotFound | Conflict | Forbidden, strawberry.union("CancelRequestResult")]


@strawberry.type
class RequestsQuery:
    @strawberry.field(graphql_type=ModelRequest | None)
    async def request(self, info: Info, id: strawberry.ID) -> records.ModelRequest | None:
        context = info.context
        context.require(Permission.READ_REQUESTS)
        return await context.services.requests.get(id, workspace_id=context.identity.workspace_id)

    @strawberry.field(graphql_type=ModelRequestConnection)
    async def requests(
        self,
        info: Info,
        filter: ModelRequestFilter | None = strawberry.UNSET,
        first: int | None = 50,
        after: str | None = strawberry.UNSET,
    ) -> _Page:
        context = info.context
        context.require(Permission.READ_REQUESTS)
        cursor = or_none(after)
        before_id = None if cursor is None else decode_cursor(_CURSOR, (str,), cursor)[0]
        where = ModelRequestFilter.to_record(or_none(filter))
        nodes, more = await context.services.requests.page(
            where,
            workspace_id=context.identity.workspace_id,
            first=check_first(50 if first is None else first),
            before_id=before_id,
        )
        return _Page(nodes, more, before_id is not None, where)


@strawberry.type
class RequestsMutation:
    @strawberry.mutation(
        graphql_type=SubmitRequestResult,
        description="Repeated under its idempotencyKey it answers the first request, and submits nothing.",
    )
    async def submit_request(self, info: Info, input: SubmitRequestInput) -> object:
        context = info.context
        return await change(
            info,
            Permission.SUBMIT_REQUESTS,
            lambda: context.services.requests.submit(
                input.to_record(),
                workspace_id=context.identity.workspace_id,
                created_by=context.identity.token_id,
            ),
        )

    @strawberry.mutation(
        graphql_type=SubmitRequestsResult,
        description="Up to 10,000 at once: all of them or, where one is refused, none. The path of an error is "
        '["inputs", its place from 0, the field].',
    )
    async def submit_requests(self, info: Info, inputs: list[SubmitRequestInput]) -> object:
        async def submit() -> SubmittedRequests:
            context = info.context
            ids = await context.services.requests.enqueue(
                batch_records(inputs),
                workspace_id=context.identity.workspace_id,
                created_by=context.identity.token_id,
            )
            return SubmittedRequests(ids=[strawberry.ID(id) for id in ids])

        return await change(info, Permission.SUBMIT_REQUESTS, submit)

    @strawberry.mutation(
        graphql_type=CancelRequestResult,
        description="A waiting request ends at once, a running one when its call has been stopped.",
    )
    async def cancel_request(self, info: Info, id: strawberry.ID) -> object:
        requests, workspace = info.context.services.requests, info.context.identity.workspace_id
        return await change(info, Permission.SUBMIT_REQUESTS, lambda: requests.cancel(id, workspace_id=workspace))


@strawberry.type
class RequestsSubscription:
    @strawberry.subscription(
        graphql_type=ModelRequest, description="The request as it is now, then at each change, until it has finished."
    )
    async def request_updated(self, info: Info, id: strawberry.ID) -> AsyncIterator[records.ModelRequest]:
        context = info.context
        context.require(Permission.READ_REQUESTS)
        seen: records.ModelRequest | None = None
        async with context.services.request_events.watch(id) as changed:
            while True:
                changed.clear()
                row = await context.services.requests.get(id, workspace_id=context.identity.workspace_id)
                if row is None:
                    raise Missing("ModelRequest", id, path=("id",))
                if row != seen:
                    seen = row
                    context.refresh_snapshot()
                    context.loaders.clear()
                    yield row
                if row.status in records.FINAL_STATUSES:
                    return
                await changed.wait()


def _record(request: ModelRequest) -> records.ModelRequest:
    return cast(records.ModelRequest, request)


def _cursor(request: records.ModelRequest) -> str:
    return encode_cursor(_CURSOR, (request.id,))


def _error(error: Any) -> RequestError | None:
    if not isinstance(error, dict):
        return None
    return RequestError(
        code=str(error.get("code", "UNKNOWN")),
        message=str(error.get("message", "")),
        retryable=bool(error.get("retryable", False)),
        http_status=error.get("httpStatus"),
    )
