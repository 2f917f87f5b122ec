"""Runs one GraphQL operation: prepared document, limits, compiled or ordinary execution, masked errors."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from graphql import ExecutionResult, GraphQLError, OperationType, execute, subscribe
from graphql.execution.values import VariableValues, get_variable_values
from strawberry import Schema
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from app.api.compiled import CompiledExecutor
from app.api.context import RequestContext
from app.api.documents import Documents, Operation, RequestErrors
from app.api.errors import format_errors, request_error
from app.api.guards import Limits, refuse
from app.config import Config

_MAX_COERCION_ERRORS = 20


@dataclass(frozen=True, slots=True)
class GraphQLParams:
    query: str
    variables: dict[str, Any]
    operation_name: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """`body` is the response map. A request error has no `data`: nothing was run."""

    body: dict[str, Any]
    is_request_error: bool = False
    snapshot_revision: int | None = None
    """Of the snapshot that is all that the answer depends on; None where it depends on more, or has errors."""


class MethodNotAllowed(Exception):
    """The operation must not be run over GET."""


class Engine:
    """`record_types`: see CompiledExecutor."""

    def __init__(self, schema: Schema, config: Config, record_types: frozenset[str]) -> None:
        self._schema = schema
        self._core = schema._schema
        self._complexity = config.max_query_complexity
        limits = Limits(config.max_query_depth, config.max_query_aliases, config.max_query_complexity)
        self._documents = Documents(self._core, limits, introspection=config.introspection)
        self._compiled = CompiledExecutor[RequestContext](schema, record_types)

    def prepare(self, params: GraphQLParams) -> tuple[Operation, VariableValues]:
        """Raises RequestErrors."""
        operation = self._documents.operation(params.query, params.operation_name)
        cost = operation.cost.evaluate(params.variables)
        if cost > self._complexity:
            raise RequestErrors([refuse("complexity", cost, self._complexity)])
        if _has_null_character(params.variables):
            raise RequestErrors([request_error("a string in the variables cannot hold U+0000", "BAD_USER_INPUT")])
        variables = get_variable_values(
            self._core,
            operation.node.variable_definitions or (),
            params.variables,
            max_errors=_MAX_COERCION_ERRORS,
            hide_suggestions=self._documents.hide_suggestions,
        )
        if isinstance(variables, list):
            for error in variables:
                error.extensions = {"code": "BAD_USER_INPUT"}
            raise RequestErrors(variables)
        return operation, variables

    async def execute(self, params: GraphQLParams, context: RequestContext, *, read_only: bool = False) -> Outcome:
        """Raises MethodNotAllowed for a mutation where `read_only`."""
        try:
            operation, variables = self.prepare(params)
            if operation.type is OperationType.SUBSCRIPTION:
                raise RequestErrors([request_error("subscriptions are served over the websocket, not over HTTP")])
        except RequestErrors as refused:
            return Outcome({"errors": format_errors(refused.errors)}, is_request_error=True)
        if read_only and operation.type is not OperationType.QUERY:
            raise MethodNotAllowed
        if operation.type is OperationType.QUERY:
            data = self._compiled.execute(operation, variables, context, context.snapshot)
            if data is not None:
                return Outcome({"data": data}, snapshot_revision=context.snapshot.revision)
        return _outcome(await self.run(operation, params, context))

    async def run(self, operation: Operation, params: GraphQLParams, context: RequestContext) -> ExecutionResult:
        """The ordinary execution, by graphql-core."""
        result = execute(
            self._core,
            operation.document,
            context_value=context,
            variable_values=params.variables,
            operation_name=params.operation_name,
            executor_class=StrawberryGraphQLCoreExecutionContext,
        )
        if inspect.isawaitable(result):
            result = await result
        assert isinstance(result, ExecutionResult)
        return result

    async def stream(self, params: GraphQLParams, context: RequestContext) -> AsyncGenerator[Outcome, None]:
        """The outcomes of a subscription; one of any other operation."""
        try:
            operation, _ = self.prepare(params)
        except RequestErrors as refused:
            yield Outcome({"errors": format_errors(refused.errors)}, is_request_error=True)
            return
        if operation.type is not OperationType.SUBSCRIPTION:
            yield await self.execute(params, context)
            return
        source = subscribe(
            self._core,
            operation.document,
            context_value=context,
            variable_values=params.variables,
            operation_name=params.operation_name,
            executor_class=StrawberryGraphQLCoreExecutionContext,
        )
        if inspect.isawaitable(source):
            source = await source
        if isinstance(source, ExecutionResult):
            yield Outcome({"errors": format_errors(source.errors or [])}, is_request_error=True)
            return
        try:
            async for result in source:
                yield _outcome(result)
        except Exception as error:  # noqa: BLE001 - the source raised: shown if it was on purpose, else masked
            failure = GraphQLError(str(error), original_error=error)
            yield Outcome({"errors": format_errors([failure])}, is_request_error=True)
        finally:
            await source.aclose()  # type: ignore[attr-defined]  # graphql-core's is an async generator


def _outcome(result: ExecutionResult) -> Outcome:
    errors: list[GraphQLError] | None = result.errors
    if not errors:
        return Outcome({"data": result.data})
    # Without a path an error was found before anything was run.
    if result.data is None and all(error.path is None for error in errors):
        return Outcome({"errors": format_errors(errors)}, is_request_error=True)
    return Outcome({"errors": format_errors(errors), "data": result.data})


def _has_null_character(value: Any) -> bool:
    """Whether a string in it holds U+0000, which no text in the database can."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if "\0" in item:
                return True
        elif isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return False
