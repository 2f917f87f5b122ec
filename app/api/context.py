"""What every resolver gets as `info.context`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import strawberry

from app.access.records import Identity, Permission
from app.catalog.snapshot import Snapshot

if TYPE_CHECKING:
    from app.api.services import ApiServices


@dataclass(slots=True)
class RequestContext:
    """One operation's caller and the catalog as it reads it.

    `snapshot` stays the same throughout a query, however long it runs; a mutation moves it on when its service has
    answered, so that its selection reads its own writes.
    """

    services: ApiServices
    identity: Identity
    snapshot: Snapshot
    loaders: dict[str, object] = field(default_factory=dict)

    def require(self, permission: Permission) -> None:
        self.identity.require(permission)

    @property
    def catalog(self) -> Snapshot:
        """The snapshot, for whoever may read it. Raises Forbidden."""
        self.identity.require(Permission.READ_CATALOG)
        return self.snapshot

    def refresh_snapshot(self) -> None:
        self.snapshot = self.services.snapshots.current


Info = strawberry.Info[RequestContext, None]
