"""The command line of the emulator."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pydantic
import typer

from app.errors import ConfigurationError
from app.providers.emulator.behaviour import ProviderSettings
from app.providers.emulator.provider import Providers
from app.providers.emulator.serving import listen, serve


def emulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free one.")] = 8089,
    seed: Annotated[int, typer.Option(help="The same seed and order of calls give the same answers.")] = 0,
    latency_ms: Annotated[str | None, typer.Option(help="Before each answer: 250, or 100,400 for a range.")] = None,
    chunk_ms: Annotated[str | None, typer.Option(help="Before each further chunk of a stream: 20, or 10,40.")] = None,
    input_tokens: Annotated[int | None, typer.Option(help="Reported; by default a quarter of the bytes.")] = None,
    output_tokens: Annotated[str | None, typer.Option(help="Length of the answer: 200, or 50,400.")] = None,
    reply: Annotated[str | None, typer.Option(help="The answer's text.")] = None,
    error: Annotated[int | None, typer.Option(help="Answer with this HTTP status, such as 429 or 500.")] = None,
    fault: Annotated[
        str | None,
        typer.Option(
            help="Fail in another way: disconnect, disconnect_midway, hang, hang_midway, error_midway, "
            "invalid_json, empty_body, huge_body or trickle."
        ),
    ] = None,
    error_rate: Annotated[float | None, typer.Option(help="Share of calls that fail, 0 to 1.")] = None,
    errors_first: Annotated[int | None, typer.Option(help="Only the first so many calls fail.")] = None,
    retry_after: Annotated[str | None, typer.Option(help="Retry-After of injected errors.")] = None,
    max_parallel: Annotated[int | None, typer.Option(help="Calls at once, for each provider.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Calls in any window.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="Input and output tokens in any window.")] = None,
    window_seconds: Annotated[float | None, typer.Option(help="Length of the window; by default 60.")] = None,
    enforce: Annotated[str | None, typer.Option(help="What a violation gets: reject (429) or record (served).")] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="TOLLGATE_EMULATOR_API_KEY", help="Refuse every other bearer token.")
    ] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=JSON",
            help="Settings of one provider, over the others: 'openai={\"max_parallel\": 4}'. Repeatable.",
        ),
    ] = None,
    record_calls: Annotated[int, typer.Option(min=1, help="Calls kept in each provider's record.")] = 100_000,
    until_stdin_closes: Annotated[
        bool, typer.Option("--until-stdin-closes", help="Stop when the process that started this one is gone.")
    ] = False,
) -> None:
    """Emulate LLM providers, with limits of their own and a record of who broke them.

    Point an OpenAI client at http://HOST:PORT/openai/v1, with any key,
    Anthropic's at http://HOST:PORT/anthropic, Google's at
    http://HOST:PORT/google; rerank is POST /cohere/v2/rerank.
    Each first part of the path ("openai", "deepseek", whatever you like)
    is a provider with settings, limits and a record of its own,
    and each speaks all the protocols.
    When ready, one line of JSON on stdout names the URL.

    While it runs:
    PUT /_emulator/providers/openai changes any setting, given as JSON;
    GET /_emulator/record?provider=openai tells what was seen;
    DELETE of the same begins anew.

    A single call can ask for an answer of its own, in the header x-emulate
    or in metadata.emulate: {"error": 500, "errors_first": 1}; or in its
    last message, as emulate {"error": 500} in double square brackets.
    """
    given: dict[str, Any] = {
        "latency_ms": _span("--latency-ms", latency_ms, float),
        "chunk_ms": _span("--chunk-ms", chunk_ms, float),
        "input_tokens": input_tokens,
        "output_tokens": _span("--output-tokens", output_tokens, int),
        "reply": reply,
        "error": error,
        "fault": fault,
        "error_rate": error_rate,
        "errors_first": errors_first,
        "retry_after": _number_or_text(retry_after),
        "max_parallel": max_parallel,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "window_seconds": window_seconds,
        "enforce": enforce,
        "api_key": api_key,
    }
    try:
        providers = Providers(ProviderSettings().merged(given), seed=seed, record_bound=record_calls)
        for item in provider or []:
            name, patch = _provider_settings(item)
            providers.get(name).configure(patch)
        listener = listen(host, port)
    except pydantic.ValidationError as invalid:
        first = invalid.errors()[0]
        raise typer.BadParameter(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except ConfigurationError as problem:
        raise typer.BadParameter(problem.message) from None
    serve(providers, listener, until_stdin_closes=until_stdin_closes)


def _span(option: str, text: str | None, kind: type[int] | type[float]) -> object:
    if text is None:
        return None
    try:
        numbers = [kind(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise typer.BadParameter(f"{option} must be a number or FROM,TO, not {text!r}")
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _number_or_text(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _provider_settings(item: str) -> tuple[str, dict[str, Any]]:
    name, separator, text = item.partition("=")
    try:
        patch = json.loads(text)
    except ValueError:
        patch = None
    if not (name and separator and isinstance(patch, dict)):
        raise typer.BadParameter(f"--provider must be NAME=JSON with a JSON object, not {item!r}")
    return name, patch
