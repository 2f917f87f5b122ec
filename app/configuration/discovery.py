"""From a provider's own list of its models to what the catalog lacks of it. Pure.

Lists: https://platform.openai.com/docs/api-reference/models/list, https://docs.anthropic.com/en/api/models-list,
https://ai.google.dev/api/rest/v1beta/models/list, https://docs.cohere.com/reference/list-models (checked 2026-11-20).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from pydantic import SecretStr

from app.catalog import validation
from app.catalog.records import LlmModel, LlmModelStatus, LlmModelType
from app.configuration.export import HEADER, dump
from app.configuration.interpolation import escape
from app.errors import InvalidResponse, ValidationError

_PAGE_SIZE: Final = 1000
_TYPES: Final = (
    (re.compile(r"embed"), LlmModelType.EMBEDDING),
    (re.compile(r"rerank"), LlmModelType.RERANK),
    (re.compile(r"moderation"), LlmModelType.MODERATION),
    (re.compile(r"whisper|transcri|speech-to-text|\bstt\b"), LlmModelType.SPEECH_TO_TEXT),
    (re.compile(r"\btts\b|text-to-speech"), LlmModelType.TEXT_TO_SPEECH),
    (re.compile(r"\bsora|\bveo\b|video"), LlmModelType.VIDEO),
    (re.compile(r"dall-e|image|imagen|\bflux\b|stable-diffusion"), LlmModelType.IMAGE),
    (re.compile(r"code|devstral"), LlmModelType.CODE),
)
_CONTEXT_KEYS: Final = (
    "context_window",
    "context_length",
    "max_context_length",
    "max_model_len",
    "max_input_tokens",
    "inputTokenLimit",
)
_OUTPUT_KEYS: Final = ("max_output_tokens", "max_completion_tokens", "max_tokens", "outputTokenLimit")


@dataclass(frozen=True, slots=True)
class ListRequest:
    """An HTTP GET. The headers hold the credential and are not shown."""

    url: str
    headers: Mapping[str, str] = field(repr=False)


class ListedModel(NamedTuple):
    """Of what a provider does not say, the type is a guess from the name; the rest is None."""

    model_id: str
    display_name: str
    description: str | None
    model_type: LlmModelType
    context_window: int | None
    max_output_tokens: int | None


class ModelPage(NamedTuple):
    """`cursor` is what the next page is asked for with; None: there is none."""

    models: tuple[ListedModel, ...]
    cursor: str | None


class Proposal(NamedTuple):
    """`gone`: models of ours that are not deprecated and that the provider does not list."""

    new: tuple[ListedModel, ...]
    gone: tuple[LlmModel, ...]


@dataclass(frozen=True, slots=True)
class ModelList:
    """How one protocol lists its models."""

    request: Callable[[str, SecretStr, str | None], ListRequest]
    parse: Callable[[Mapping[str, Any]], ModelPage]


def propose(listed: Iterable[ListedModel], present: Sequence[LlmModel]) -> Proposal:
    unique = {model.model_id: model for model in listed}
    known = {model.model_id for model in present}
    new = tuple(unique[model_id] for model_id in sorted(unique) if model_id not in known)
    gone = (row for row in present if row.model_id not in unique and row.status is not LlmModelStatus.DEPRECATED)
    return Proposal(new, tuple(gone))


def write_proposal(provider: str, proposal: Proposal) -> str:
    """A file to be read, changed and applied. What may be gone stands in comments: a list can leave aliases out."""
    about = "New models of" if proposal.new else "No new models of"
    tail = " The provider tells no prices: add them." if proposal.new else ""
    models = [_entry(model) for model in proposal.new]
    written = dump({"providers": [{"name": provider, "models": models or None}]}).removesuffix(" null\n").rstrip()
    lines = [HEADER.rstrip(), f"# {about} {provider}.{tail}", written]
    if proposal.gone:
        lines.append(f"  # {provider} does not list these. Where one is gone, take away the #.")
        lines += [f"  # - {{modelId: {_quoted(row.model_id)}, status: DEPRECATED}}" for row in proposal.gone]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + escape(text).replace("'", "''") + "'"


def _entry(model: ListedModel) -> dict[str, Any]:
    given = {
        "modelId": model.model_id,
        "displayName": model.display_name,
        "description": model.description,
        "modelType": model.model_type,
        "contextWindow": model.context_window,
        "maxOutputTokens": model.max_output_tokens,
    }
    return {key: value for key, value in given.items() if value is not None}


def guess_type(model_id: str) -> LlmModelType:
    return next((kind for pattern, kind in _TYPES if pattern.search(model_id.lower())), LlmModelType.TEXT)


def _openai_request(base_url: str, credential: SecretStr, _cursor: str | None) -> ListRequest:
    return ListRequest(f"{base_url}/models", {"authorization": f"Bearer {credential.get_secret_value()}"})


def _openai_page(body: Mapping[str, Any]) -> ModelPage:
    return ModelPage(tuple(_models(body, "data", "id")), None)


def _anthropic_request(base_url: str, credential: SecretStr, cursor: str | None) -> ListRequest:
    query = {"limit": str(_PAGE_SIZE), **({"after_id": cursor} if cursor is not None else {})}
    headers = {"x-api-key": credential.get_secret_value(), "anthropic-version": "2023-06-01"}
    return ListRequest(f"{base_url.removesuffix('/v1')}/v1/models?{urlencode(query)}", headers)


def _anthropic_page(body: Mapping[str, Any]) -> ModelPage:
    cursor = body.get("last_id") if body.get("has_more") is True else None
    return ModelPage(tuple(_models(body, "data", "id")), cursor if isinstance(cursor, str) else None)


def _google_request(base_url: str, credential: SecretStr, cursor: str | None) -> ListRequest:
    query = {"pageSize": str(_PAGE_SIZE), **({"pageToken": cursor} if cursor is not None else {})}
    root = base_url.removesuffix("/v1beta")
    return ListRequest(f"{root}/v1beta/models?{urlencode(query)}", {"x-goog-api-key": credential.get_secret_value()})


def _google_page(body: Mapping[str, Any]) -> ModelPage:
    cursor = body.get("nextPageToken")
    return ModelPage(tuple(_models(body, "models", "name")), cursor if isinstance(cursor, str) and cursor else None)


def _cohere_request(base_url: str, credential: SecretStr, cursor: str | None) -> ListRequest:
    query = {"page_size": str(_PAGE_SIZE), **({"page_token": cursor} if cursor is not None else {})}
    # Models are listed by the first version of the API only.
    root = base_url.removesuffix("/v2").removesuffix("/v1")
    headers = {"authorization": f"Bearer {credential.get_secret_value()}"}
    return ListRequest(f"{root}/v1/models?{urlencode(query)}", headers)


def _cohere_page(body: Mapping[str, Any]) -> ModelPage:
    cursor = body.get("next_page_token")
    return ModelPage(tuple(_models(body, "models", "name")), cursor if isinstance(cursor, str) and cursor else None)


MODEL_LISTS: Final[Mapping[str, ModelList]] = {
    "openai": ModelList(_openai_request, _openai_page),
    "openai_responses": ModelList(_openai_request, _openai_page),
    "cohere": ModelList(_cohere_request, _cohere_page),
    "anthropic": ModelList(_anthropic_request, _anthropic_page),
    "google": ModelList(_google_request, _google_page),
}
"""By adapter."""


def _models(body: Mapping[str, Any], key: str, id_key: str) -> Iterable[ListedModel]:
    items = body.get(key)
    if not isinstance(items, list):
        raise InvalidResponse(f"the provider's list of models cannot be used: it has no list {key!r}")
    for item in items:
        name = item.get(id_key) if isinstance(item, dict) else None
        if not isinstance(name, str):
            raise InvalidResponse(f"the provider's list of models cannot be used: a model has no {id_key!r}")
        model_id = name.removeprefix("models/")
        try:
            validation.model_id(model_id)
        except ValidationError:
            # The catalog cannot hold it.
            continue
        yield ListedModel(
            model_id,
            _text(item, ("display_name", "displayName"), validation.MAX_DISPLAY_NAME) or model_id,
            _text(item, ("description",), validation.MAX_DESCRIPTION),
            LlmModelType.EMBEDDING if "embedContent" in _methods(item) else guess_type(model_id),
            _count(item, _CONTEXT_KEYS),
            _count(item, _OUTPUT_KEYS),
        )


def _methods(item: Mapping[str, Any]) -> Sequence[Any]:
    """Google says what a model can be asked for."""
    methods = item.get("supportedGenerationMethods")
    return methods if isinstance(methods, list) else ()


def _text(item: Mapping[str, Any], keys: Iterable[str], longest: int) -> str | None:
    for key in keys:
        value = item.get(key)
        if isinstance(value, str):
            try:
                return validation.text(value, key, longest)
            except ValidationError:
                continue
    return None


def _count(item: Mapping[str, Any], keys: Iterable[str]) -> int | None:
    values = (item.get(key) for key in keys)
    whole = (value for value in values if isinstance(value, int) and not isinstance(value, bool))
    return next((value for value in whole if 1 <= value <= validation.MAX_COUNT), None)
