"""Who calls: tokens, roles, and what a role may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NewType

from app.access.permissions import Permission, permissions_of
from app.db.rows import AccessRole, AccessToken
from app.errors import Forbidden

__all__ = [
    "DEFAULT_WORKSPACE",
    "AccessRole",
    "AccessToken",
    "CreatedToken",
    "Identity",
    "Permission",
    "TokenId",
    "WorkspaceId",
]

TokenId = NewType("TokenId", str)
WorkspaceId = NewType("WorkspaceId", str)

DEFAULT_WORKSPACE: Final = WorkspaceId("default")
"""The id of the workspace that always exists."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose token a request carries."""

    token_id: TokenId
    workspace_id: WorkspaceId
    role: AccessRole
    name: str

    def may(self, permission: Permission) -> bool:
        return permission in permissions_of(self.role)

    def require(self, permission: Permission) -> None:
        """Raises Forbidden, naming the role and what it lacks."""
        if not self.may(permission):
            raise Forbidden(f"a token of role {self.role.lower()} may not {permission.value}")


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """The only time that `token` itself is at hand: it is stored as a hash."""

    row: AccessToken
    token: str = field(repr=False)
