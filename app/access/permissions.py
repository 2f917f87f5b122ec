"""What each role may do."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, assert_never

from app.db.rows import AccessRole


class Permission(StrEnum):
    """The values read as the end of "may not ..."."""

    READ_CATALOG = "read the catalog"
    MANAGE_CATALOG = "change the catalog or its settings"
    READ_REQUESTS = "read requests"
    SUBMIT_REQUESTS = "submit or cancel requests"
    MANAGE_ACCESS = "manage access tokens"


_READER: Final = frozenset((Permission.READ_CATALOG, Permission.READ_REQUESTS))
_OPERATOR: Final = _READER | {Permission.SUBMIT_REQUESTS}
_ADMIN: Final = frozenset(Permission)


def permissions_of(role: AccessRole) -> frozenset[Permission]:
    match role:
        case AccessRole.ADMIN:
            return _ADMIN
        case AccessRole.OPERATOR:
            return _OPERATOR
        case AccessRole.READER:
            return _READER
    assert_never(role)
