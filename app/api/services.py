"""The ready services that the HTTP process serves; built by the composition root."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from app.access.authenticator import Authenticator
from app.access.service import AccessService
from app.catalog.service import CatalogService
from app.catalog.snapshots import SnapshotHolder
from app.config import Config
from app.db.listen import Listener
from app.db.pool import Database
from app.execution.downloads import Downloads
from app.gateway.calls import GatewayCalls
from app.limits.service import LimitService
from app.requests.events import RequestEvents
from app.requests.preparation import Preparation
from app.requests.service import RequestService
from app.settings.service import SettingsService
from app.usage.service import UsageService
from app.videos.service import VideoService


@dataclass(frozen=True, slots=True)
class ApiServices:
    """`listener` has been started, so that `snapshots` and `authenticator` hold what is committed."""

    config: Config
    database: Database
    listener: Listener
    snapshots: SnapshotHolder
    authenticator: Authenticator
    catalog: CatalogService
    settings: SettingsService
    access: AccessService
    requests: RequestService
    preparation: Preparation
    usage: UsageService
    videos: VideoService
    downloads: Downloads
    limits: LimitService
    gateway: GatewayCalls
    call_metrics: CollectorRegistry
    request_events: RequestEvents
