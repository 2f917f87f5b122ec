"""The service: what a program calls models with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from tollgate import catalog, queue
from tollgate.catalog import Price
from tollgate.chat import Options, Prompt, chat_call, invoke
from tollgate.embedded import EmbeddedServer
from tollgate.kinds import Kinds
from tollgate.records import Answer, ModelInfo, Request, UsageSummary
from tollgate.streams import AsyncStream, Stream
from tollgate.transport import Transport
from tollgate.usage import usage_summary


class Service(Kinds):
    """Calls models through a Tollgate server, whose limits and ledger hold for it as for everything else.

    One service is enough for a program: it is safe for threads, and for any number of event loops. `tollgate.init`
    makes one. Every method raises a `tollgate.TollgateError`.
    """

    def __init__(
        self, url: str, token: str, *, timeout_seconds: float = 700, embedded: EmbeddedServer | None = None
    ) -> None:
        self._transport = Transport(url, token, timeout_seconds=timeout_seconds)
        self._embedded = embedded

    @property
    def url(self) -> str:
        return self._transport.url

    def __repr__(self) -> str:
        return f"Service({self.url!r})"

    # --- calls of chat models ---

    def __call__(self, model_id: str, prompt: Prompt, **parameters: Any) -> Answer:
        """As `invoke_model`."""
        return self.invoke_model(model_id, prompt, **parameters)

    def invoke_model(
        self,
        model_id: str,
        prompt: Prompt,
        *,
        priority: int = 0,
        wait_seconds: float | None = None,
        fallbacks: Sequence[str] = (),
        **parameters: Any,
    ) -> Answer:
        """Waits its turn, up to `wait_seconds`, then for the answer. `parameters` are OpenAI's: temperature, tools, ...

        `fallbacks` are models to go on with, in this order, when the one before has failed.
        """
        return self._transport.run(
            invoke(chat_call(model_id, prompt, parameters, Options(priority, wait_seconds, fallbacks)))
        )

    async def invoke_model_async(
        self,
        model_id: str,
        prompt: Prompt,
        *,
        priority: int = 0,
        wait_seconds: float | None = None,
        fallbacks: Sequence[str] = (),
        **parameters: Any,
    ) -> Answer:
        """As `invoke_model`. Cancelling the task cancels the call."""
        call = chat_call(model_id, prompt, parameters, Options(priority, wait_seconds, fallbacks))
        return await self._transport.run_async(invoke(call))

    def stream(
        self,
        model_id: str,
        prompt: Prompt,
        *,
        priority: int = 0,
        wait_seconds: float | None = None,
        fallbacks: Sequence[str] = (),
        **parameters: Any,
    ) -> Stream:
        """An iterator over the answer's chunks, as they come."""
        options = Options(priority, wait_seconds, fallbacks)
        return Stream(self._transport, chat_call(model_id, prompt, parameters, options, stream=True))

    def stream_async(
        self,
        model_id: str,
        prompt: Prompt,
        *,
        priority: int = 0,
        wait_seconds: float | None = None,
        fallbacks: Sequence[str] = (),
        **parameters: Any,
    ) -> AsyncStream:
        """For `async for chunk in service.stream_async(...)`."""
        options = Options(priority, wait_seconds, fallbacks)
        return AsyncStream(self._transport, chat_call(model_id, prompt, parameters, options, stream=True))

    # --- calls in the queue ---

    def submit(
        self,
        model_id: str,
        prompt: Any,
        *,
        priority: int = 0,
        idempotency_key: str | None = None,
        deadline: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> Request:
        """Puts a call into the queue, which any worker may run, also after this program has ended.

        `prompt` is a text, messages, or what a model of another kind takes: texts to embed, `{"query", "documents"}`.
        Under an `idempotency_key` that was used before, it is the request of then.
        """
        return self._transport.run(
            queue.submit_one(
                _submission(model_id, prompt, priority, idempotency_key, deadline, metadata, parameters),
            )
        )

    async def submit_async(
        self,
        model_id: str,
        prompt: Any,
        *,
        priority: int = 0,
        idempotency_key: str | None = None,
        deadline: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> Request:
        item = _submission(model_id, prompt, priority, idempotency_key, deadline, metadata, parameters)
        return await self._transport.run_async(queue.submit_one(item))

    def submit_many(
        self,
        model_id: str,
        prompts: Sequence[Any],
        *,
        priority: int = 0,
        deadline: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> list[Request]:
        """A request for each prompt, in order.

        They go in batches of up to 1,000, each all or not at all: where one is refused, as `field` tells
        ("prompts.17.messages"), the batches before its own are submitted.
        """
        items = queue.submissions(
            model_id, prompts, priority=priority, deadline=deadline, metadata=metadata, parameters=parameters
        )
        return self._transport.run(queue.submit(items))

    async def submit_many_async(
        self,
        model_id: str,
        prompts: Sequence[Any],
        *,
        priority: int = 0,
        deadline: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> list[Request]:
        items = queue.submissions(
            model_id, prompts, priority=priority, deadline=deadline, metadata=metadata, parameters=parameters
        )
        return await self._transport.run_async(queue.submit(items))

    def get_request(self, request_id: str) -> Request:
        """As it is now. Calls that did not go through the queue are requests too: see `Answer.request_id`."""
        return self._transport.run(queue.get_request(request_id))

    async def get_request_async(self, request_id: str) -> Request:
        return await self._transport.run_async(queue.get_request(request_id))

    def cancel(self, request_id: str) -> Request:
        return self._transport.run(queue.cancel(request_id))

    async def cancel_async(self, request_id: str) -> Request:
        return await self._transport.run_async(queue.cancel(request_id))

    def wait(self, request: Request | str, *, timeout_seconds: float | None = None) -> Request:
        """Until it has finished, however it did: see `Request.raise_for_error`. Raises StillWaiting."""
        return self._transport.run(queue.wait_one(_id(request), timeout_seconds))

    async def wait_async(self, request: Request | str, *, timeout_seconds: float | None = None) -> Request:
        return await self._transport.run_async(queue.wait_one(_id(request), timeout_seconds))

    def wait_many(self, requests: Sequence[Request | str], *, timeout_seconds: float | None = None) -> list[Request]:
        """Until all have finished. In their order."""
        return self._transport.run(queue.wait([_id(request) for request in requests], timeout_seconds))

    async def wait_many_async(
        self, requests: Sequence[Request | str], *, timeout_seconds: float | None = None
    ) -> list[Request]:
        return await self._transport.run_async(queue.wait([_id(request) for request in requests], timeout_seconds))

    # --- the catalog ---

    def list_models(self, provider: str | None = None) -> list[str]:
        """The ids ("openai:gpt-4o") of all models, or of a provider's, without the deprecated ones."""
        return [model.id for model in self.get_models(provider)]

    async def list_models_async(self, provider: str | None = None) -> list[str]:
        return [model.id for model in await self._transport.run_async(catalog.get_models(provider))]

    def get_models(self, provider: str | None = None) -> list[ModelInfo]:
        """As `list_models`, with all that the catalog says of them."""
        return self._transport.run(catalog.get_models(provider))

    def get_model(self, model_id: str) -> Model:
        """A callable: `service.get_model("openai:gpt-4o")("Hello").data`. Raises NotFound."""
        return Model(self, self._transport.run(catalog.get_model(model_id)))

    async def get_model_async(self, model_id: str) -> Model:
        return Model(self, await self._transport.run_async(catalog.get_model(model_id)))

    def register_model(
        self,
        model_id: str,
        *,
        display_name: str | None = None,
        cost_input_per_million: Price | None = None,
        cost_output_per_million: Price | None = None,
        model_type: str = "TEXT",
        description: str | None = None,
        capabilities: Sequence[str] = (),
        context_window: int | None = None,
        max_output_tokens: int | None = None,
        is_default: bool = False,
    ) -> Model:
        """Adds "provider:model" to the catalog, or brings back one that was unregistered. Needs an admin's token."""
        steps = catalog.register_model(
            model_id,
            display_name=display_name,
            cost_input_per_million=cost_input_per_million,
            cost_output_per_million=cost_output_per_million,
            model_type=model_type,
            description=description,
            capabilities=capabilities,
            context_window=context_window,
            max_output_tokens=max_output_tokens,
            is_default=is_default,
        )
        return Model(self, self._transport.run(steps))

    def unregister_model(self, model_id: str) -> bool:
        """Deletes the model; where there are requests of it, it is deprecated instead, and the answer is False."""
        return self._transport.run(catalog.unregister_model(model_id))

    def register_provider(
        self,
        name: str,
        *,
        display_name: str | None = None,
        adapter: str = "openai",
        base_url: str | None = None,
        max_parallel_requests: int = 1,
        requests_per_minute: int = 60,
        tokens_per_minute: int | None = None,
    ) -> None:
        """Adds a provider with its limits. `adapter` is the protocol that it speaks. Needs an admin's token."""
        self._transport.run(
            catalog.register_provider(
                name,
                display_name=display_name,
                adapter=adapter,
                base_url=base_url,
                max_parallel_requests=max_parallel_requests,
                requests_per_minute=requests_per_minute,
                tokens_per_minute=tokens_per_minute,
            )
        )

    # --- usage ---

    def get_usage_summary(
        self, model_id: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> UsageSummary:
        """What the ledger has: of all models or of one, charged from `since` on and before `until`."""
        return self._transport.run(usage_summary(model_id, since, until))

    async def get_usage_summary_async(
        self, model_id: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> UsageSummary:
        return await self._transport.run_async(usage_summary(model_id, since, until))

    # --- the end ---

    def close(self) -> None:
        """An embedded server that no other program uses then stops."""
        self._transport.close()
        self._leave()

    async def aclose(self) -> None:
        """As `close`, and closes the connections of this event loop."""
        await self._transport.aclose()
        self._leave()

    def _leave(self) -> None:
        if self._embedded is not None:
            self._embedded.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        await self.aclose()


class Model:
    """A model to call: `model("Hello").data`. `info` is what the catalog said of it when it was asked."""

    def __init__(self, service: Service, info: ModelInfo) -> None:
        self._service = service
        self.info = info

    @property
    def id(self) -> str:
        return self.info.id

    def __call__(self, prompt: Prompt, **parameters: Any) -> Answer:
        return self._service.invoke_model(self.id, prompt, **parameters)

    async def invoke_async(self, prompt: Prompt, **parameters: Any) -> Answer:
        return await self._service.invoke_model_async(self.id, prompt, **parameters)

    def stream(self, prompt: Prompt, **parameters: Any) -> Stream:
        return self._service.stream(self.id, prompt, **parameters)

    def stream_async(self, prompt: Prompt, **parameters: Any) -> AsyncStream:
        return self._service.stream_async(self.id, prompt, **parameters)

    def __repr__(self) -> str:
        return f"Model({self.id!r})"


def _submission(
    model_id: str,
    prompt: Any,
    priority: int,
    idempotency_key: str | None,
    deadline: datetime | None,
    metadata: Mapping[str, Any] | None,
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    return queue.submission(
        model_id,
        prompt,
        parameters=parameters,
        priority=priority,
        idempotency_key=idempotency_key,
        deadline=deadline,
        metadata=metadata,
    )


def _id(request: Request | str) -> str:
    return request.id if isinstance(request, Request) else request
