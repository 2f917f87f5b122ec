"""The compiled execution against graphql-core's own: the same data, byte for byte, wherever it answers at all."""

from __future__ import annotations

from typing import Any, cast

import orjson
import pytest
from graphql import (
    REMOVE,
    ArgumentNode,
    DocumentNode,
    FieldNode,
    IntValueNode,
    NameNode,
    ObjectFieldNode,
    Visitor,
    parse,
    print_ast,
    visit,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_graphql import nodes, queries

from app.api.context import RequestContext
from app.api.engine import Engine, GraphQLParams
from app.api.services import ApiServices
from app.config import Config
from app.schema import RECORD_TYPES, print_sdl, schema
from tests.app.api.sample import ADMIN, sample_snapshot

CATALOG_ROOTS = [
    "llmProviders",
    "llmProvider",
    "llmModels",
    "llmModel",
    "searchModels",
    "systemSettings",
    "systemSetting",
    "infraModel",
]
CUSTOM_SCALARS = {
    "Decimal": st.sampled_from(["0", "1.5", "10"]).map(nodes.String),
    "DateTime": st.just("2026-01-01T00:00:00Z").map(nodes.String),
    "JSON": st.just("x").map(nodes.String),
}
SNAPSHOT = sample_snapshot()
ENGINE = Engine(
    schema,
    Config(max_query_depth=50, max_query_aliases=1000, max_query_complexity=10**30, data_dir=cast(Any, ".")),
    RECORD_TYPES,
)


def context() -> RequestContext:
    return RequestContext(cast(ApiServices, None), ADMIN, SNAPSHOT)


async def compare(query: str, variables: dict[str, Any] | None = None) -> bool:
    """Whether it was compiled; fails where that gives something else than the ordinary execution."""
    params = GraphQLParams(query, variables or {}, None)
    operation, coerced = ENGINE.prepare(params)
    compiled = ENGINE._compiled.execute(operation, coerced, context(), SNAPSHOT)
    if compiled is None:
        return False
    ordinary = await ENGINE.run(operation, params, context())
    assert ordinary.errors is None, query
    assert orjson.dumps(compiled) == orjson.dumps(ordinary.data), query
    return True


ARGUMENTS: dict[str, list[str]] = {
    "llmProvider": ['(name: "p0")', '(id: "provider1")', '(name: "nobody")'],
    "llmModel": ['(ref: "p0:m1")', '(ref: "#/Model/p2/m0")', '(id: "model1-1")', '(id: "none")'],
    "searchModels": ['(query: "model")', '(query: "p1", first: 3)'],
    "systemSetting": ['(key: "other")', '(key: "none")'],
    "infraModel": ['(task: "a")'],
}


NOT_OF_THE_SNAPSHOT = ("prices", "limits")
"""Fields that change while the catalog does not."""


class WithoutErrors(Visitor):
    """Replaces the arguments that random text would make errors of, and the fields that are not the snapshot's."""

    def enter_field(self, node: FieldNode, *_: Any) -> FieldNode | None:
        if node.name.value in NOT_OF_THE_SNAPSHOT:
            return FieldNode(name=NameNode(value="__typename"), alias=node.alias, directives=node.directives)
        choices = ARGUMENTS.get(node.name.value)
        if choices is None:
            return None
        chosen = cast(Any, parse(f"{{ x{choices[len(print_ast(node)) % len(choices)]} }}"))
        return FieldNode(
            name=node.name,
            alias=node.alias,
            directives=node.directives,
            selection_set=node.selection_set,
            arguments=chosen.definitions[0].selection_set.selections[0].arguments,
        )

    def enter_argument(self, node: ArgumentNode, *_: Any) -> Any:
        if node.name.value == "first":
            return ArgumentNode(name=node.name, value=IntValueNode(value=str(len(print_ast(node)) % 7 + 1)))
        return REMOVE if node.name.value == "after" else None

    def enter_object_field(self, node: ObjectFieldNode, *_: Any) -> Any:
        return REMOVE if node.name.value == "text" else None


def print_without_errors(document: DocumentNode) -> str:
    return print_ast(visit(document, WithoutErrors()))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    query=queries(
        print_sdl(),
        fields=CATALOG_ROOTS,
        custom_scalars=CUSTOM_SCALARS,
        allow_x00=False,
        print_ast=print_without_errors,
    )
)
async def test_any_catalog_query_gives_the_same_data_compiled(query: str) -> None:
    assert await compare(query)


REAL_QUERIES: list[tuple[str, dict[str, Any]]] = [
    ("{ llmProviders { id name models { id ref } } }", {}),
    ("{ llmProviders(isEnabled: true) { name models { costInputPerMillion provider { name models { id } } } } }", {}),
    ("query($e: Boolean) { llmProviders(isEnabled: $e) { name } }", {"e": False}),
    ("query($e: Boolean) { llmProviders(isEnabled: $e) { name } }", {"e": None}),
    ("query($e: Boolean) { llmProviders(isEnabled: $e) { name } }", {}),
    ('{ a: llmProvider(name: "p0") { id } b: llmProvider(id: "provider1") { id } c: llmProvider(id: "x") { id } }', {}),
    ("{ llmModels(first: 4) { totalCount nodes { id capabilities } pageInfo { hasNextPage endCursor } } }", {}),
    ("{ llmModels(first: 4) { edges { cursor node { status createdAt } } pageInfo { startCursor } } }", {}),
    (
        "query($f: LlmModelFilter, $o: LlmModelOrder) { llmModels(filter: $f, orderBy: $o) { nodes { ref } } }",
        {"f": {"status": ["ACTIVE"], "hasPrice": True}, "o": {"field": "COST_INPUT", "direction": "DESC"}},
    ),
    ('{ llmModels(filter: {modelType: TEXT, capabilities: "vision"}) { nodes { ref } } }', {}),
    ("query($c: String!) { llmModels(filter: {capabilities: [$c]}) { nodes { ref } } }", {"c": "tools"}),
    ('{ llmModel(ref: "p1:m2") { __typename id t: __typename provider { __typename } } __typename }', {}),
    ('{ searchModels(query: "model") { nodes { ref displayName } totalCount } }', {}),
    ('{ systemSettings { id key value updatedAt } systemSetting(key: "other") { value } }', {}),
    ('{ infraModel(task: "a") { ref } }', {}),
    # merged selections, in the order of their first occurrence
    ("{ llmProviders { name models { id } ... on LlmProvider { isEnabled models { ref } name } } }", {}),
    (
        "{ llmProviders { ...A ...B } } fragment A on LlmProvider { id m: models { id } } "
        "fragment B on LlmProvider { m: models { ref id } name }",
        {},
    ),
    # decided by variables, each way
    *(
        (
            "query($x: Boolean!, $y: Boolean = true) { llmProviders { id @skip(if: $x) name @include(if: $y) "
            "... @include(if: $x) { models { id } } } }",
            {"x": x, "y": y},
        )
        for x in (True, False)
        for y in (True, False)
    ),
    ("{ llmProviders { id @skip(if: true) } llmModels @include(if: false) { totalCount } }", {}),
]


@pytest.mark.parametrize(("query", "variables"), REAL_QUERIES)
async def test_the_queries_that_clients_send_are_compiled(query: str, variables: dict[str, Any]) -> None:
    assert await compare(query, variables)
    assert await compare(query, variables)


@pytest.mark.parametrize(
    "query",
    [
        "{ __schema { queryType { name } } }",
        '{ __type(name: "Query") { name } }',
        '{ infraModel(task: "gone") { ref } }',
        '{ infraModel(task: "missing") { ref } }',
        "{ llmModels(first: 0) { totalCount } }",
        "{ llmProvider { id } }",
        '{ estimateCost(model: "p0:m1", usage: {}) { total } }',
        "{ llmProviders { models { prices { unit } } } }",
        "{ llmProviders { limits { running } } }",
    ],
)
async def test_what_has_errors_or_reads_more_is_left_to_graphql_core(query: str) -> None:
    assert not await compare(query)


async def test_a_new_snapshot_is_never_answered_with_the_old_ones_values() -> None:
    query = GraphQLParams("{ llmProviders { name models { ref } } }", {}, None)
    for count in (1, 2, 3):
        snapshot = sample_snapshot(revision=count, providers=count)
        outcome = await ENGINE.execute(query, RequestContext(cast(ApiServices, None), ADMIN, snapshot))
        assert [item["name"] for item in outcome.body["data"]["llmProviders"]] == [f"p{n}" for n in range(count)]
        assert outcome.snapshot_revision == count


async def test_answers_with_errors_are_not_cacheable() -> None:
    outcome = await ENGINE.execute(GraphQLParams('{ infraModel(task: "gone") { ref } }', {}, None), context())
    assert outcome.body["data"] == {"infraModel": None}
    assert outcome.body["errors"][0]["extensions"]["code"] == "MODEL_UNAVAILABLE"
    assert outcome.snapshot_revision is None
