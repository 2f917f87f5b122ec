"""The control API under /_emulator: settings and records of the providers, at run time."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pydantic
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.providers.emulator.provider import Providers, VirtualProvider
from app.providers.emulator.routing import DEFAULT_PROVIDER


class Control:
    """
    GET /health; GET /providers; GET, PUT, DELETE /providers/{name}; GET, DELETE /record?provider={name};
    GET /wait?provider={name}&arrivals=&running=&ended=&timeout_seconds=.

    PUT merges a JSON object of ProviderSettings fields (null sets one back) and answers with the result. DELETE of a
    provider forgets it whole; DELETE of a record keeps its settings and the calls that its window still counts.
    `wait` answers as soon as the record counts so many calls that arrived, run and ended: 200, or 408 after the time.
    """

    def __init__(self, providers: Providers) -> None:
        self._providers = providers

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/_emulator/health", self._health, methods=["GET"]),
                Route("/_emulator/providers", self._list, methods=["GET"]),
                Route("/_emulator/providers/{name}", self._show, methods=["GET"]),
                Route("/_emulator/providers/{name}", self._configure, methods=["PUT"]),
                Route("/_emulator/providers/{name}", self._remove, methods=["DELETE"]),
                Route("/_emulator/record", self._record, methods=["GET"]),
                Route("/_emulator/record", self._reset, methods=["DELETE"]),
                Route("/_emulator/wait", self._wait, methods=["GET"]),
            ]
        )

    async def _health(self, request: Request) -> Response:
        return _json({"status": "ok"})

    async def _list(self, request: Request) -> Response:
        return _json({provider.name: _settings(provider) for provider in self._providers.all()})

    async def _show(self, request: Request) -> Response:
        return _json(_settings(self._providers.get(request.path_params["name"])))

    async def _configure(self, request: Request) -> Response:
        provider = self._providers.get(request.path_params["name"])
        try:
            patch = orjson.loads(await request.body())
            if not isinstance(patch, dict):
                return _json({"error": "the body must be a JSON object"}, 422)
            provider.configure(patch)
        except orjson.JSONDecodeError as error:
            return _json({"error": f"the body must be JSON: {error}"}, 422)
        except pydantic.ValidationError as error:
            problems = [{"field": ".".join(map(str, e["loc"])), "problem": e["msg"]} for e in error.errors()]
            return _json({"error": "the settings are not valid", "problems": problems}, 422)
        return _json(_settings(provider))

    async def _remove(self, request: Request) -> Response:
        self._providers.remove(request.path_params["name"])
        return Response(status_code=204)

    async def _record(self, request: Request) -> Response:
        with_calls = request.query_params.get("calls", "true") != "false"
        bodies = [
            provider.record.as_json(provider.enforcement, with_calls=with_calls) for provider in self._chosen(request)
        ]
        if "provider" in request.query_params:
            return _json(bodies[0])
        return _json({body["provider"]: body for body in bodies})

    async def _reset(self, request: Request) -> Response:
        for provider in self._chosen(request):
            provider.record.reset()
            provider.enforcement.reset_peaks()
        return Response(status_code=204)

    async def _wait(self, request: Request) -> Response:
        asked = request.query_params
        try:
            counts = {name: int(asked.get(name, "0")) for name in ("arrivals", "running", "ended")}
            timeout_seconds = float(asked.get("timeout_seconds", "10"))
        except ValueError as error:
            return _json({"error": str(error)}, 422)
        record = self._providers.get(asked.get("provider", DEFAULT_PROVIDER)).record
        reached = 200
        try:
            async with asyncio.timeout(timeout_seconds):
                await record.until(**counts)
        except TimeoutError:
            reached = 408
        return _json(
            {"arrivals": record.arrivals, "running": record.arrivals - record.ended, "ended": record.ended}, reached
        )

    def _chosen(self, request: Request) -> list[VirtualProvider]:
        name = request.query_params.get("provider")
        return self._providers.all() if name is None else [self._providers.get(name)]


def _settings(provider: VirtualProvider) -> dict[str, Any]:
    return provider.settings.model_dump(mode="json")


def _json(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
