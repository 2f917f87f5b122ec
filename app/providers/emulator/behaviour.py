"""What an emulated provider is told to do: pace, token counts, failures and its own limits."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from app.providers.emulator.wire import Stop

ERROR_STATUSES = frozenset({400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529})


def _rising(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError("the first of [from, to] must not be the greater")
    return span


def _known_status(status: int) -> int:
    if status not in ERROR_STATUSES:
        raise ValueError(f"must be one of {', '.join(map(str, sorted(ERROR_STATUSES)))}")
    return status


_Milliseconds = Annotated[float, Field(ge=0)]
_Tokens = Annotated[int, Field(ge=0)]
Span = _Milliseconds | Annotated[tuple[_Milliseconds, _Milliseconds], AfterValidator(_rising)]
"""Fixed, or [from, to] drawn uniformly."""
Count = _Tokens | Annotated[tuple[_Tokens, _Tokens], AfterValidator(_rising)]
Limit = Annotated[int, Field(ge=1)] | None


class Fault(StrEnum):
    """Ways to fail that are not an HTTP error."""

    DISCONNECT = "disconnect"
    """The connection breaks before any header."""
    DISCONNECT_MIDWAY = "disconnect_midway"
    """It breaks half-way through the body or the stream."""
    HANG = "hang"
    """Nothing is ever sent; the call ends when the client leaves."""
    HANG_MIDWAY = "hang_midway"
    ERROR_MIDWAY = "error_midway"
    """A stream turns into an error after half of it; a whole answer is cut as by disconnect_midway."""
    INVALID_JSON = "invalid_json"
    EMPTY_BODY = "empty_body"
    HUGE_BODY = "huge_body"
    TRICKLE = "trickle"
    """The right answer, a byte at a time."""


class ToolOrder(BaseModel):
    """A tool call that the answer makes, whether or not such a tool was offered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    arguments: dict[str, Any] = {}


def _as_many(value: object) -> object:
    return [value] if isinstance(value, Mapping | ToolOrder) else value


class Behaviour(BaseModel):
    """How a call is answered. The same fields serve a provider's settings and a single call's directive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latency_ms: Span = 0
    first_byte_ms: Span | None = None
    """Of a stream; null: as latency_ms."""
    chunk_ms: Span = 0
    """Before each further chunk of a stream."""
    chunk_tokens: Annotated[int, Field(ge=1)] = 1
    stream_chunks: Annotated[int, Field(ge=1)] | None = None
    """How many chunks of text a stream has, as far as there is text for them; goes before chunk_tokens."""

    input_tokens: _Tokens | None = None
    """Null: a quarter of the prompt's bytes, at least 1."""
    output_tokens: Count | None = None
    """Includes reasoning_tokens. Null: what the reply comes to. Never above the call's own maximum."""
    cached_tokens: _Tokens = 0
    """Included in input_tokens."""
    cache_write_tokens: _Tokens = 0
    """Included in input_tokens, and none of the cached ones."""
    reasoning_tokens: _Tokens = 0
    """0: what `reasoning` comes to."""
    reasoning: str | None = None
    """Shown as far as the protocol shows it. Null: a default one, where the call asks to see it."""
    reply: str | None = None
    """Null: what the call asks for: JSON that fits its schema, else a greeting."""
    tool_call: Annotated[tuple[ToolOrder, ...], BeforeValidator(_as_many)] = ()
    """One or a list. None: the offered tool, where the call demands one, with arguments that fit its schema."""
    finish_reason: Stop | None = None
    missing_usage: bool = False
    cut_stream_usage: bool = False
    """missing_usage, of streams alone."""

    images: _Tokens | None = None
    """Null: as many as the call asks for. Likewise the next three, of the calls that are billed by them."""
    characters: _Tokens | None = None
    seconds: Annotated[float, Field(ge=0)] | None = None
    searches: _Tokens | None = None
    flagged: bool = False
    """What a moderation says."""
    job_polls: Annotated[int, Field(ge=1)] = 2
    """A video is there at this poll."""
    job_fails: bool = False
    """It is not, and is not billed."""
    job_poll_errors: Annotated[int, Field(ge=0)] = 0
    """So many polls of a video fail first."""
    job_file_bytes: Annotated[int, Field(ge=0, le=1 << 30)] = 0
    """How large the file of a video is at least."""

    error: Annotated[int, AfterValidator(_known_status)] | None = None
    fault: Fault | None = None
    error_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    """How likely a call meets the error or fault (null: surely); of neither is named, status 500."""
    errors_first: Annotated[int, Field(ge=0)] | None = None
    """Only the first so many calls may fail."""
    errors_first_per: Literal["provider", "key"] = "provider"
    """key: counted for each request key, or for each last message's text where a call has no key."""
    error_message: str | None = None
    retry_after: Annotated[float, Field(ge=0)] | str | None = None
    """Of injected errors: seconds, or a text that is sent as it is (an HTTP date, or nonsense)."""
    lookup_error: Annotated[int, AfterValidator(_known_status)] | None = None
    """Of what is no call: a model list, the poll of a video. Only as a provider's setting."""
    huge_body_bytes: Annotated[int, Field(ge=1, le=1 << 30)] = 32 << 20
    trickle_ms: _Milliseconds = 50

    @property
    def may_fail(self) -> bool:
        return not (self.error is None and self.fault is None and self.error_rate is None and self.errors_first is None)

    def overridden(self, patch: Mapping[str, Any]) -> Behaviour:
        """This behaviour for one call. An error or fault in `patch` is certain unless it says otherwise itself."""
        base = {name: getattr(self, name) for name in Behaviour.model_fields}
        if patch.get("error") is not None or patch.get("fault") is not None:
            base.update(error=None, fault=None, error_rate=None, errors_first=None, errors_first_per="key")
        return Behaviour.model_validate(_merge(base, patch))


class ProviderSettings(Behaviour):
    """A provider's behaviour, limits and credentials."""

    max_parallel: Limit = None
    requests_per_minute: Limit = None
    """In any `window_seconds`."""
    tokens_per_minute: Limit = None
    window_seconds: Annotated[float, Field(gt=0)] = 60
    enforce: Literal["reject", "record"] = "reject"
    """What a violation leads to, besides being recorded: 429, or nothing."""
    grace_seconds: Annotated[float, Field(ge=0)] = 0
    """For so long after an edit, calls are judged by the more generous of the old and the new limit."""
    tolerance_ms: _Milliseconds = 0
    """Shortens the window, for clients whose clock is not this one."""
    api_key: SecretStr | None = None
    """Null: any bearer token will do."""
    models: tuple[str, ...] = ()
    """Empty: every model is known."""

    def merged(self, patch: Mapping[str, Any]) -> Self:
        """These settings with the fields of `patch`; null sets a field back. Raises pydantic.ValidationError."""
        return self.model_validate(_merge({name: getattr(self, name) for name in type(self).model_fields}, patch))


def _merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**base, **patch}.items() if value is not None}
