"""The checked-in SDL, and the names in it that clients rely on."""

from __future__ import annotations

import subprocess
import sys

import pytest
from graphql import GraphQLObjectType, GraphQLUnionType, build_schema

from app.schema import SDL, print_sdl

CONTRACT = {
    "Query": {
        "llmProviders(isEnabled: Boolean): [LlmProvider!]!",
        "llmProvider(id: ID, name: String): LlmProvider",
        "llmModels(filter: LlmModelFilter, orderBy: LlmModelOrder, first: Int = 50, after: String): "
        "LlmModelConnection!",
        "llmModel(id: ID, ref: String): LlmModel",
        "searchModels(query: String!, first: Int = 20, after: String): LlmModelConnection!",
        "systemSettings: [SystemSetting!]!",
        "systemSetting(key: String!): SystemSetting",
        "infraModel(task: String!): LlmModel",
        "request(id: ID!): ModelRequest",
        "requests(filter: ModelRequestFilter, first: Int = 50, after: String): ModelRequestConnection!",
        "estimateCost(model: String!, usage: UsageInput!, at: DateTime): CostReceipt!",
    },
    "Subscription": {"requestUpdated(id: ID!): ModelRequest!", "catalogChanged: CatalogRevision!"},
}
MUTATIONS = {
    "createLlmProvider",
    "updateLlmProvider",
    "deleteLlmProvider",
    "createLlmModel",
    "updateLlmModel",
    "deprecateLlmModel",
    "reactivateLlmModel",
    "setDefaultLlmModel",
    "deleteLlmModel",
    "setSystemSetting",
    "deleteSystemSetting",
    "submitRequest",
    "cancelRequest",
}
FIELDS = {
    "LlmProvider": "id name displayName maxParallelRequests requestsPerMinute isEnabled createdAt updatedAt models",
    "LlmModel": "id providerId modelId displayName costInputPerMillion costOutputPerMillion status isDefault "
    "createdAt updatedAt provider",
    "SystemSetting": "id key value updatedAt",
    "ModelRequest": "id status model provider priority idempotencyKey deadline metadata parameters output outputText "
    "usage cost error attempts createdAt startedAt finishedAt",
    "Usage": "inputTokens outputTokens cacheReadTokens cacheWriteTokens estimated",
    "LlmModelConnection": "edges nodes pageInfo totalCount",
    "ModelRequestConnection": "edges nodes pageInfo totalCount",
}


def test_the_checked_in_sdl_is_what_the_schema_prints() -> None:
    assert SDL.read_text(encoding="utf-8") == print_sdl(), "run 'python -m app.schema --write'"


def test_the_module_prints_and_checks_it() -> None:
    printed = subprocess.run([sys.executable, "-m", "app.schema"], check=True, capture_output=True, text=True)
    assert printed.stdout == print_sdl()
    subprocess.run([sys.executable, "-m", "app.schema", "--check"], check=True)


@pytest.mark.parametrize("type_name", CONTRACT)
def test_every_root_field_of_the_contract_is_there_as_written(type_name: str) -> None:
    lines = {line.strip() for line in print_sdl().splitlines()}
    assert CONTRACT[type_name] <= lines


@pytest.mark.parametrize("type_name", FIELDS)
def test_every_field_of_the_contract_is_there(type_name: str) -> None:
    type_ = build_schema(print_sdl()).type_map[type_name]
    assert isinstance(type_, GraphQLObjectType)
    assert set(FIELDS[type_name].split()) <= set(type_.fields)


def test_every_mutation_answers_its_success_or_typed_errors() -> None:
    schema = build_schema(print_sdl())
    assert schema.mutation_type is not None
    assert set(schema.mutation_type.fields) >= MUTATIONS
    for name, field in schema.mutation_type.fields.items():
        union = schema.type_map[str(field.type).rstrip("!")]
        assert isinstance(union, GraphQLUnionType), name
        success, *errors = union.types
        assert [interface.name for interface in success.interfaces] == [], name
        assert all([interface.name for interface in error.interfaces] == ["Error"] for error in errors), name
        assert "Forbidden" in [error.name for error in errors], name
