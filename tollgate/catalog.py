"""The catalog's models, read and changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from tollgate.errors import Conflict, NotFound, ValidationError
from tollgate.records import ModelInfo
from tollgate.steps import ERROR_FRAGMENT, Steps, accepted, decimal, graphql

Price = Decimal | str | int
"""Per 1,000,000 tokens; a float would not be exact."""

_PAGE: Final = 100
_FIELDS: Final = """
fragment Fields on LlmModel {
  id ref modelId displayName description modelType status capabilities contextWindow maxOutputTokens
  costInputPerMillion costOutputPerMillion isDefault provider { name }
}"""
_RESULT: Final = f"{{ __typename ... on LlmModel {{ ...Fields }} {ERROR_FRAGMENT} }} }}{_FIELDS}"


def get_models(provider: str | None) -> Steps[list[ModelInfo]]:
    """All that have not been deprecated."""
    found: list[ModelInfo] = []
    after: str | None = None
    while True:
        data = yield from graphql(
            "query($filter: LlmModelFilter, $first: Int, $after: String) {"
            " llmModels(filter: $filter, first: $first, after: $after) {"
            f" nodes {{ ...Fields }} pageInfo {{ hasNextPage endCursor }} }} }}{_FIELDS}",
            {"filter": {"provider": provider, "status": ["ACTIVE", "INACTIVE"]}, "first": _PAGE, "after": after},
        )
        page = data["llmModels"]
        found += [_model(row) for row in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


def get_model(model_id: str) -> Steps[ModelInfo]:
    """Raises NotFound."""
    found = yield from _find(model_id)
    if found is None:
        raise NotFound(f"no LlmModel {model_id!r}", path=("model_id",))
    return found


def register_model(
    model_id: str,
    *,
    display_name: str | None,
    cost_input_per_million: Price | None,
    cost_output_per_million: Price | None,
    model_type: str,
    description: str | None,
    capabilities: Sequence[str],
    context_window: int | None,
    max_output_tokens: int | None,
    is_default: bool,
) -> Steps[ModelInfo]:
    """One that was unregistered and kept for its requests comes back with what is given now."""
    provider, separator, name = model_id.partition(":")
    if not (provider and separator and name):
        raise ValidationError(f'model_id must be "provider:model", not {model_id!r}', path=("model_id",))
    fields = {
        "displayName": display_name or name,
        "costInputPerMillion": _price("cost_input_per_million", cost_input_per_million),
        "costOutputPerMillion": _price("cost_output_per_million", cost_output_per_million),
        "modelType": model_type,
        "description": description,
        "capabilities": list(capabilities),
        "contextWindow": context_window,
        "maxOutputTokens": max_output_tokens,
    }
    existing = yield from _find(model_id)
    if existing is not None and existing.status == "DEPRECATED":
        model = yield from _change(
            "UpdateLlmModelInput!", "updateLlmModel", existing.key, {**fields, "status": "ACTIVE"}
        )
        if is_default:
            model = yield from _by_id("setDefaultLlmModel", model.key)
        return model
    data = yield from graphql("query($name: String) { llmProvider(name: $name) { id } }", {"name": provider})
    if data["llmProvider"] is None:
        raise NotFound(f"no LlmProvider {provider!r}: register_provider() makes one", path=("model_id",))
    created = {**fields, "providerId": data["llmProvider"]["id"], "modelId": name, "isDefault": is_default}
    data = yield from graphql(
        f"mutation($input: CreateLlmModelInput!) {{ result: createLlmModel(input: $input) {_RESULT}", {"input": created}
    )
    return _model(accepted(data["result"]))


def unregister_model(model_id: str) -> Steps[bool]:
    """Deletes it, or deprecates it where there are requests of it. Whether it is gone altogether."""
    model = yield from get_model(model_id)
    data = yield from graphql(
        "query($id: ID!) { requests(filter: {modelId: $id}, first: 1) { nodes { id } } }", {"id": model.key}
    )
    if not data["requests"]["nodes"]:
        try:
            deleted = yield from graphql(
                f"mutation($id: ID!) {{ result: deleteLlmModel(id: $id) {{ __typename {ERROR_FRAGMENT} }} }}",
                {"id": model.key},
            )
            accepted(deleted["result"])
        except Conflict:
            pass  # a request came meanwhile
        else:
            return True
    yield from _by_id("deprecateLlmModel", model.key)
    return False


def register_provider(
    name: str,
    *,
    display_name: str | None,
    adapter: str,
    base_url: str | None,
    max_parallel_requests: int,
    requests_per_minute: int,
    tokens_per_minute: int | None,
) -> Steps[None]:
    fields = {
        "name": name,
        "displayName": display_name or name,
        "adapter": adapter,
        "baseUrl": base_url,
        "maxParallelRequests": max_parallel_requests,
        "requestsPerMinute": requests_per_minute,
        "tokensPerMinute": tokens_per_minute,
    }
    data = yield from graphql(
        "mutation($input: CreateLlmProviderInput!) { result: createLlmProvider(input: $input)"
        f" {{ __typename {ERROR_FRAGMENT} }} }}",
        {"input": fields},
    )
    accepted(data["result"])


def _find(model_id: str) -> Steps[ModelInfo | None]:
    data = yield from graphql(
        f"query($ref: String!) {{ llmModel(ref: $ref) {{ ...Fields }} }}{_FIELDS}", {"ref": model_id}
    )
    return None if data["llmModel"] is None else _model(data["llmModel"])


def _change(input_type: str, mutation: str, key: str, fields: Mapping[str, Any]) -> Steps[ModelInfo]:
    data = yield from graphql(
        f"mutation($id: ID!, $input: {input_type}) {{ result: {mutation}(id: $id, input: $input) {_RESULT}",
        {"id": key, "input": fields},
    )
    return _model(accepted(data["result"]))


def _by_id(mutation: str, key: str) -> Steps[ModelInfo]:
    data = yield from graphql(f"mutation($id: ID!) {{ result: {mutation}(id: $id) {_RESULT}", {"id": key})
    return _model(accepted(data["result"]))


def _price(field: str, price: Price | None) -> str | None:
    if price is None:
        return None
    if isinstance(price, bool) or not isinstance(price, (Decimal, str, int)):
        raise ValidationError(f"{field} must be a Decimal, a str or an int, not {price!r}", path=(field,))
    return format(price, "f") if isinstance(price, Decimal) else str(price)


def _model(row: Mapping[str, Any]) -> ModelInfo:
    return ModelInfo(
        id=row["ref"],
        key=row["id"],
        provider=row["provider"]["name"],
        model_id=row["modelId"],
        display_name=row["displayName"],
        description=row["description"],
        model_type=row["modelType"],
        status=row["status"],
        capabilities=tuple(row["capabilities"]),
        context_window=row["contextWindow"],
        max_output_tokens=row["maxOutputTokens"],
        cost_input_per_million=decimal(row["costInputPerMillion"]),
        cost_output_per_million=decimal(row["costOutputPerMillion"]),
        is_default=row["isDefault"],
    )
