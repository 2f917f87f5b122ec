"""The composition root: the only place that builds concrete things, for the API, the workers and the seed."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector

from app.access.authenticator import Authenticator
from app.access.service import AccessService, AdminToken
from app.api.services import ApiServices
from app.catalog.service import CatalogService
from app.catalog.snapshots import SnapshotHolder
from app.config import Config
from app.credentials.environment import EnvironmentCredentials
from app.db.embedded import embedded_postgres
from app.db.ids import new_id
from app.db.listen import Listener
from app.db.migrate import migrate
from app.db.pool import Database
from app.execution.attempt import Timeouts
from app.execution.calls import Calls
from app.execution.chunks import ChunkLog
from app.execution.clock import SteadyClock
from app.execution.downloads import Downloads
from app.execution.executor import Executor
from app.execution.finisher import Finisher
from app.execution.leases import LeaseKeeper
from app.execution.steps import CatalogEndpoints, Credentials, EmulatorEndpoints, Endpoints
from app.execution.watchdog import Watchdog
from app.gateway.calls import GatewayCalls
from app.limits.service import LimitService
from app.observability.metrics import CallMetrics
from app.observability.observation import Observer, Observers
from app.observability.switch import tracing_is_switched_on
from app.providers.registry import ADAPTERS
from app.providers.transport import Transport
from app.requests.events import RequestEvents
from app.requests.preparation import Preparation
from app.requests.service import RequestService
from app.settings.service import SettingsService
from app.usage.service import UsageService
from app.videos.service import VideoService


@dataclass(frozen=True, slots=True)
class Execution:
    """What a process needs to run calls. `listener` is not started yet: subscribe first."""

    worker_id: str
    database: Database
    clock: SteadyClock
    listener: Listener
    snapshots: SnapshotHolder
    calls: Calls
    leases: LeaseKeeper
    metrics: CollectorRegistry


@asynccontextmanager
async def open_dsn(config: Config) -> AsyncIterator[str]:
    """The DSN of DATABASE_URL's server, else of the embedded one, which runs for as long as the block."""
    if config.database_url is not None:
        yield config.database_url.get_secret_value()
    else:
        async with embedded_postgres(config.data_dir) as dsn:
            yield dsn


@asynccontextmanager
async def open_database(
    config: Config, *, application_name: str = "tollgate", size: int | None = None, migrated: bool = True
) -> AsyncIterator[Database]:
    """A connected database, by default with its schema brought up to date."""
    async with open_dsn(config) as dsn:
        database = await Database.connect(
            dsn, size=size or config.database_pool_size, application_name=application_name
        )
        try:
            if migrated:
                await migrate(database)
            yield database
        finally:
            await database.close()


async def ensure_admin_token(config: Config, database: Database) -> AdminToken:
    """The first admin token: the preset one, else the one kept in the data directory, made where there is none."""
    return await AccessService(database, Authenticator(database)).ensure_admin(config.admin_token, config.data_dir)


@asynccontextmanager
async def open_api(config: Config, *, is_guarded: bool = False) -> AsyncIterator[ApiServices]:
    """The services of the HTTP process, with its snapshot read and its listener connected.

    With `is_guarded` the whole process is killed where it is frozen for almost a lease.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(config, application_name="tollgate api"))
        listener = Listener(database.dsn)
        snapshots = SnapshotHolder(database)
        snapshots.attach(listener)
        stack.push_async_callback(snapshots.stop)
        authenticator = Authenticator(database)
        authenticator.attach(listener)
        stack.push_async_callback(authenticator.stop)
        events = RequestEvents(listener)
        preparation = Preparation(adapters=ADAPTERS, default_max_output_tokens=config.default_max_output_tokens)
        transport = await stack.enter_async_context(Transport(max_connections=config.gateway_concurrency))
        clock = await stack.enter_async_context(_steady_clock(config, database))
        leases = _leases(config, database, clock, is_guarded)
        owner_id = process_id("api")
        registry = CollectorRegistry()
        observer = stack.enter_context(_observer(config, registry, owner_id))
        gateway = GatewayCalls(
            owner_id=owner_id,
            database=database,
            clock=clock,
            listener=listener,
            snapshots=snapshots,
            calls=_calls(config, database, clock, snapshots, transport, leases, observer),
            leases=leases,
            concurrency=config.gateway_concurrency,
            lease_seconds=config.lease_seconds,
            max_waiting=config.gateway_max_waiting,
        )
        requests = RequestService(database, snapshots, preparation)
        await listener.start()
        stack.push_async_callback(listener.stop)
        await gateway.start()
        stack.push_async_callback(lambda: gateway.stop(drain_seconds=config.drain_seconds))
        yield ApiServices(
            config=config,
            database=database,
            listener=listener,
            snapshots=snapshots,
            authenticator=authenticator,
            catalog=CatalogService(database, snapshots, adapters=ADAPTERS),
            settings=SettingsService(database, snapshots),
            access=AccessService(database, authenticator),
            requests=requests,
            preparation=preparation,
            usage=UsageService(database, snapshots),
            videos=VideoService(database, requests),
            downloads=_downloads(config, snapshots, transport),
            limits=LimitService(database),
            gateway=gateway,
            call_metrics=registry,
            request_events=events,
        )


def process_id(kind: str) -> str:
    """Names this process in rows and logs."""
    return f"{kind}-{socket.gethostname()}-{os.getpid()}-{new_id()[-6:]}"


@asynccontextmanager
async def open_execution(config: Config, *, is_guarded: bool = False) -> AsyncIterator[Execution]:
    """What runs calls, in a worker process of its own. `is_guarded`: as of `open_api`."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(config, application_name="tollgate worker"))
        listener = Listener(database.dsn)
        snapshots = SnapshotHolder(database)
        snapshots.attach(listener)
        stack.push_async_callback(snapshots.stop)
        transport = await stack.enter_async_context(Transport(max_connections=config.worker_concurrency))
        stack.push_async_callback(listener.stop)
        clock = await stack.enter_async_context(_steady_clock(config, database))
        leases = _leases(config, database, clock, is_guarded)
        worker_id = process_id("worker")
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        observer = stack.enter_context(_observer(config, registry, worker_id))
        yield Execution(
            worker_id=worker_id,
            database=database,
            clock=clock,
            listener=listener,
            snapshots=snapshots,
            calls=_calls(config, database, clock, snapshots, transport, leases, observer),
            leases=leases,
            metrics=registry,
        )


@asynccontextmanager
async def _steady_clock(config: Config, database: Database) -> AsyncIterator[SteadyClock]:
    clock = SteadyClock(database, lease_seconds=config.lease_seconds)
    await clock.start()
    try:
        yield clock
    finally:
        await clock.stop()


def _leases(config: Config, database: Database, clock: SteadyClock, is_guarded: bool) -> LeaseKeeper:
    return LeaseKeeper(database, clock, lease_seconds=config.lease_seconds, watchdog=Watchdog() if is_guarded else None)


@contextmanager
def _observer(config: Config, registry: CollectorRegistry, instance_id: str) -> Iterator[Observer]:
    """Metrics always; spans where OpenTelemetry's own variables name a collector."""
    observers: list[Observer] = [CallMetrics(registry)]
    if not tracing_is_switched_on():
        yield Observers(observers)
        return
    from app.observability.tracing import CallTracing, tracer_provider

    provider = tracer_provider(instance_id)
    observers.append(CallTracing(provider.get_tracer("tollgate"), records_content=config.record_content))
    try:
        yield Observers(observers)
    finally:
        provider.shutdown()


def _calls(
    config: Config,
    database: Database,
    clock: SteadyClock,
    snapshots: SnapshotHolder,
    transport: Transport,
    leases: LeaseKeeper,
    observer: Observer,
) -> Calls:
    credentials, endpoints = _upstream(config)
    executor = Executor(
        snapshots,
        transport,
        adapters=ADAPTERS,
        credentials=credentials,
        endpoints=endpoints,
        timeouts=_timeouts(config),
    )
    return Calls(executor, Finisher(database, clock), leases, ChunkLog(database), observer)


def _downloads(config: Config, snapshots: SnapshotHolder, transport: Transport) -> Downloads:
    credentials, endpoints = _upstream(config)
    return Downloads(
        snapshots,
        transport,
        adapters=ADAPTERS,
        credentials=credentials,
        endpoints=endpoints,
        timeouts=_timeouts(config),
    )


def _upstream(config: Config) -> tuple[Credentials, Endpoints]:
    """Where calls go, and with what keys."""
    if config.emulator_url is None:
        return EnvironmentCredentials(), CatalogEndpoints()
    emulator = EmulatorEndpoints(config.emulator_url)
    return emulator, emulator


def _timeouts(config: Config) -> Timeouts:
    return Timeouts(
        connect=config.connect_timeout_seconds,
        read=config.read_timeout_seconds,
        total=config.call_timeout_seconds,
    )
