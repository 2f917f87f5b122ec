"""OpenAI's moderations, both ways.

Wire format: https://platform.openai.com/docs/api-reference/moderations (checked 2026-11-20). Texts alone have a result
each; texts and images together are one input with one result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from app.errors import InvalidRequest, ValidationError
from app.prices.records import Usage
from app.providers.adapter import ModelCall, ModelResponse, WireRequest, WireResponse
from app.providers.bodies import read_object
from app.providers.dialect import Answered, ClientCall
from app.providers.messages import Image, Part, Text
from app.providers.openai.chat import image_url
from app.providers.openai.client_body import image_of, in_field, parameters_of, take_metadata, take_text
from app.providers.openai.dialect import WholeAnswers, refuse_streaming
from app.providers.openai.usage import read_input_usage
from app.providers.openai.wire import checked_parameters, invalid_answer, json_request, read_json
from app.providers.operations import ModerationOutput, ModerationRequest, ModerationResult

_encode: Final = msgspec.json.Encoder().encode
_DEFAULT_MODEL: Final = "omni-moderation-latest"
_RESERVED: Final = frozenset({"input", "model"})
_JUDGED_BY_IMAGE: Final = frozenset(
    {
        "self-harm",
        "self-harm/instructions",
        "self-harm/intent",
        "sexual",
        "violence",
        "violence/graphic",
    }
)
"""https://platform.openai.com/docs/guides/moderation#content-classifications (checked 2026-11-20)"""


def render_moderation(call: ModelCall) -> WireRequest:
    request = call.request
    assert isinstance(request, ModerationRequest)
    body = checked_parameters(call, frozenset(), _RESERVED, "moderations")
    if not request.inputs:
        raise InvalidRequest("inputs must hold at least 1 input")
    texts: list[str] = []
    parts: list[dict[str, Any]] = []
    for index, part in enumerate(request.inputs):
        match part:
            case Text():
                texts.append(part.text)
                parts.append({"type": "text", "text": part.text})
            case Image():
                parts.append({"type": "image_url", "image_url": {"url": image_url(part, f"inputs[{index}]")}})
            case _:
                raise InvalidRequest(f"inputs[{index}] must be a text or an image")
    body["model"] = call.model_id
    body["input"] = texts if len(texts) == len(parts) else parts
    return json_request(call, "/moderations", body)


class _Result(Struct):
    flagged: bool
    categories: dict[str, bool | None]
    category_scores: dict[str, float | None]


class _Answer(Struct):
    results: list[_Result]
    id: str | None = None
    model: str | None = None
    usage: Any = None


_decode: Final = msgspec.json.Decoder(_Answer).decode


def parse_moderation(call: ModelCall, response: WireResponse) -> ModelResponse:
    request = call.request
    assert isinstance(request, ModerationRequest)
    body = read_json(response, _decode, _Answer)
    count = len(request.inputs) if all(isinstance(part, Text) for part in request.inputs) else 1
    if len(body.results) != count:
        raise invalid_answer(f"it has {len(body.results)} results, not {count}", response)
    provider_request_id = response.headers.get("x-request-id")
    return ModelResponse(
        output=ModerationOutput([_result(result) for result in body.results]),
        # OpenAI bills nothing and says nothing; Mistral counts tokens.
        usage=read_input_usage(body.usage, provider_request_id) or Usage(),
        response_model=body.model,
        response_id=body.id,
        provider_request_id=provider_request_id,
    )


def _result(result: _Result) -> ModerationResult:
    """A model that does not know a category writes null for it."""
    return ModerationResult(
        flagged=result.flagged,
        categories={name: value for name, value in result.categories.items() if value is not None},
        scores={name: value for name, value in result.category_scores.items() if value is not None},
    )


class _ImageUrl(Struct, forbid_unknown_fields=True):
    url: str


class _Input(Struct, forbid_unknown_fields=True):
    type: str
    text: str | None = None
    image_url: _ImageUrl | None = None


class OpenAIModerationsDialect(WholeAnswers):
    def decode(self, body: bytes, headers: Mapping[str, str]) -> ClientCall:
        fields = read_object(body)
        if fields.get("model") is None:
            fields["model"] = _DEFAULT_MODEL
        model = take_text(fields, "model")
        refuse_streaming(fields)
        request = ModerationRequest(_inputs(fields.pop("input", None)))
        return ClientCall(model, request, parameters_of(fields), metadata=take_metadata(fields))

    def encode(self, call: ClientCall, response: ModelResponse, usage: Usage, answered: Answered) -> tuple[bytes, str]:
        output = response.output
        request = call.request
        assert isinstance(output, ModerationOutput)
        assert isinstance(request, ModerationRequest)
        with_text = any(isinstance(part, Text) for part in request.inputs)
        with_image = any(isinstance(part, Image) for part in request.inputs)
        body = {
            "id": f"modr-{answered.request_id}",
            "model": answered.model,
            "results": [
                {
                    "flagged": result.flagged,
                    "categories": result.categories,
                    "category_scores": result.scores,
                    "category_applied_input_types": {
                        name: _applied(name, with_text=with_text, with_image=with_image) for name in result.categories
                    },
                }
                for result in output.results
            ],
        }
        return _encode(body), "application/json"


def _applied(category: str, *, with_text: bool, with_image: bool) -> list[str]:
    return ["text"] * with_text + ["image"] * (with_image and category in _JUDGED_BY_IMAGE)


def _inputs(value: Any) -> list[Part]:
    if isinstance(value, str):
        return [Text(value)]
    if not isinstance(value, list) or not value:
        raise ValidationError("input", value, "a text, or a list of texts or of parts")
    if isinstance(value[0], str):
        return [Text(text) for text in in_field("input", value, list[str])]
    parts: list[Part] = []
    for index, part in enumerate(in_field("input", value, list[_Input])):
        if part.type == "text" and part.text is not None:
            parts.append(Text(part.text))
        elif part.type == "image_url" and part.image_url is not None:
            parts.append(image_of(part.image_url.url, None, f"input[{index}].image_url.url"))
        else:
            raise ValidationError(f"input[{index}].type", part.type, "text or image_url")
    if len(parts) > 1 and all(isinstance(part, Text) for part in parts):
        # As parts they would be one input: joined, they are one text with one result.
        return [Text("\n".join(part.text for part in parts if isinstance(part, Text)))]
    return parts
