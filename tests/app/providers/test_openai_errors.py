"""What the gateway tells of an error becomes the exception of OpenAI's SDK that fits."""

from __future__ import annotations

import httpx2
import openai
import pytest

from app.errors import (
    AuthenticationFailed,
    CallCancelled,
    CallTimeout,
    ConfigurationError,
    Conflict,
    ConnectionFailed,
    DatabaseUnavailable,
    Forbidden,
    InvalidRequest,
    InvalidResponse,
    ModelNotFound,
    ModelUnavailable,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
    PermitExpired,
    PriceUnknown,
    ProviderConflict,
    ProviderUnavailable,
    RateLimited,
    TollgateError,
    Unauthenticated,
    ValidationError,
)
from app.providers.openai.errors import encode_error

CLIENT = openai.OpenAI(api_key="none", base_url="https://gateway.test/v1")


def raised(error: TollgateError) -> openai.APIStatusError:
    told = encode_error(error)
    request = httpx2.Request("POST", "https://gateway.test/v1/chat/completions")
    response = httpx2.Response(told.status, content=told.body, headers=dict(told.headers), request=request)
    return CLIENT._make_status_error_from_response(response)


def is_tried_again(error: TollgateError) -> bool:
    told = encode_error(error)
    return CLIENT._should_retry(httpx2.Response(told.status, headers=dict(told.headers)))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValidationError("messages[0].role", "king", "a role"), openai.BadRequestError),
        (PriceUnknown("no price"), openai.BadRequestError),
        (InvalidRequest("no"), openai.BadRequestError),
        (Unauthenticated("no token"), openai.AuthenticationError),
        (AuthenticationFailed("no key"), openai.AuthenticationError),
        (Forbidden("no"), openai.PermissionDeniedError),
        (PermissionDenied("no"), openai.PermissionDeniedError),
        (NotFound("LlmModel", "a:b"), openai.NotFoundError),
        (ModelUnavailable("a:b", "it is deprecated"), openai.NotFoundError),
        (ModelNotFound("no"), openai.NotFoundError),
        (Conflict("no"), openai.ConflictError),
        (ProviderConflict("no"), openai.ConflictError),
        (RateLimited("slow"), openai.RateLimitError),
        (ProviderUnavailable("down"), openai.InternalServerError),
        (CallTimeout("late"), openai.InternalServerError),
        (ConnectionFailed("cut"), openai.InternalServerError),
        (InvalidResponse("nonsense"), openai.InternalServerError),
        (PermitExpired("late"), openai.InternalServerError),
        (DatabaseUnavailable("gone"), openai.InternalServerError),
        (ConfigurationError("wrong"), openai.InternalServerError),
        (PayloadTooLarge("big"), openai.APIStatusError),
        (CallCancelled("stop"), openai.APIStatusError),
    ],
)
def test_each_error_is_the_sdk_s_own(error: TollgateError, kind: type[openai.APIStatusError]) -> None:
    assert type(raised(error)) is kind


def test_error_names_the_field_and_its_code() -> None:
    error = raised(ValidationError("messages[0].role", "king", "a role"))
    assert error.param == "messages[0].role"
    assert error.code == "validation"
    assert error.type == "invalid_request_error"
    assert "messages[0].role must be a role, not 'king'" in error.message
    assert raised(NotFound("LlmModel", "a:b")).code == "model_not_found"


def test_wait_is_told_in_whole_seconds() -> None:
    assert encode_error(RateLimited("slow", retry_after_seconds=2.1)).headers["retry-after"] == "3"


def test_sdk_tries_again_what_may_pass_and_nothing_else() -> None:
    assert is_tried_again(RateLimited("slow"))
    assert is_tried_again(ProviderUnavailable("down"))
    assert is_tried_again(ConnectionFailed("cut"))
    assert not is_tried_again(Conflict("no"))
    assert not is_tried_again(InvalidResponse("nonsense"))
    assert not is_tried_again(CallTimeout("late"))
    assert not is_tried_again(ValidationError("a", 1, "b"))


def test_faults_of_our_own_are_not_told() -> None:
    assert "secret" not in raised(ConfigurationError("the secret path is wrong")).message
