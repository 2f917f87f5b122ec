"""The output of a request in GraphQL, followed as it comes."""

# mypy: disallow-untyped-decorators=False
# strawberry.field answers Any, so that mypy takes it for an untyped decorator.

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Self

import msgspec
import strawberry

from app.access.records import Permission
from app.api.context import Info
from app.api.scalars import JSON
from app.providers import operations
from app.providers.operations import Chunk, Finished, ReasoningDelta, TextDelta
from app.requests.follow import OutputPart, follow_output

if TYPE_CHECKING:
    from app.requests.graphql import ModelRequest

strawberry.enum(operations.FinishReason)


@strawberry.type(description="A piece of a tool call. The first one of each `index` has id and name.")
class ToolCallDelta:
    index: int
    id: str | None
    name: str | None
    arguments: str = strawberry.field(description="To be appended to those of before; JSON when whole.")


@strawberry.type(
    description="A part of an answer. The parts since the last restart, put together, are the whole of it; the last "
    "part has the finished request."
)
class RequestOutput:
    sequence: int = strawberry.field(description="Counts the parts of this subscription from 0.")
    attempt: int = strawberry.field(description="The number of the attempt that answers.")
    is_restart: bool = strawberry.field(
        description="What came before this part is void: another attempt answers from the beginning."
    )
    text: str = strawberry.field(description="To be appended. Of the first choice, as the next three.")
    reasoning: str
    tool_calls: list[ToolCallDelta]
    finish_reason: operations.FinishReason | None
    chunks: list[JSON] = strawberry.field(
        description="All that this part brings, of every choice: objects of type text, reasoning, refusal, tool_call, "
        "finished, started or usage."
    )
    is_final: bool
    request: Annotated[ModelRequest, strawberry.lazy("app.requests.graphql")] | None = strawberry.field(
        description="In the last part: as it has finished."
    )

    @classmethod
    def of(cls, part: OutputPart) -> Self:
        first = [chunk for chunk in part.chunks if getattr(chunk, "choice", None) == 0]
        request: Any = part.request
        return cls(
            sequence=part.sequence,
            attempt=part.attempt,
            is_restart=part.is_restart,
            text="".join(chunk.text for chunk in first if isinstance(chunk, TextDelta)),
            reasoning="".join(chunk.text for chunk in first if isinstance(chunk, ReasoningDelta)),
            tool_calls=_tool_calls(first),
            finish_reason=next((chunk.finish_reason for chunk in first if isinstance(chunk, Finished)), None),
            chunks=[msgspec.to_builtins(chunk) for chunk in part.chunks],
            is_final=part.request is not None,
            request=request,
        )


@strawberry.type
class OutputSubscription:
    @strawberry.subscription(
        graphql_type=RequestOutput,
        description="The answer of a request as it comes: what there is already, what a streamed one brings while it "
        "runs, at its end whatever is left, then the request itself.",
    )
    async def request_output(self, info: Info, id: strawberry.ID) -> AsyncIterator[RequestOutput]:
        context = info.context
        context.require(Permission.READ_REQUESTS)
        services = context.services
        parts = follow_output(
            services.requests, services.request_events, id, workspace_id=context.identity.workspace_id
        )
        async with aclosing(parts):
            async for part in parts:
                context.refresh_snapshot()
                context.loaders.clear()
                yield RequestOutput.of(part)


def _tool_calls(chunks: list[Chunk]) -> list[ToolCallDelta]:
    return [
        ToolCallDelta(index=chunk.index, id=chunk.id, name=chunk.name, arguments=chunk.arguments)
        for chunk in chunks
        if isinstance(chunk, operations.ToolCallDelta)
    ]
