"""Roles, and tokens as text."""

from __future__ import annotations

import re

import pytest

from app.access.permissions import Permission, permissions_of
from app.access.records import AccessRole, CreatedToken, Identity, TokenId, WorkspaceId
from app.access.tokens import generate_token, hash_token, token_prefix
from app.errors import Forbidden


def identity(role: AccessRole) -> Identity:
    return Identity(TokenId("t"), WorkspaceId("default"), role, "ci")


def test_an_admin_may_do_everything() -> None:
    assert permissions_of(AccessRole.ADMIN) == frozenset(Permission)


def test_an_operator_submits_and_reads_and_changes_nothing_else() -> None:
    assert permissions_of(AccessRole.OPERATOR) == {
        Permission.READ_CATALOG,
        Permission.READ_REQUESTS,
        Permission.SUBMIT_REQUESTS,
    }


def test_a_reader_only_reads() -> None:
    assert permissions_of(AccessRole.READER) == {Permission.READ_CATALOG, Permission.READ_REQUESTS}


def test_what_a_role_lacks_is_forbidden_by_name() -> None:
    identity(AccessRole.OPERATOR).require(Permission.SUBMIT_REQUESTS)
    with pytest.raises(Forbidden, match="role reader may not change the catalog"):
        identity(AccessRole.READER).require(Permission.MANAGE_CATALOG)


def test_a_token_is_long_random_and_url_safe() -> None:
    tokens = {generate_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"tg_[A-Za-z0-9_-]{43}", token) for token in tokens)


def test_of_a_token_only_a_little_may_be_shown() -> None:
    assert token_prefix("tg_abcdefghijklmnopqrstuvwxyz0123456789") == "tg_abcde"
    assert token_prefix("short-token!") == "sho"


def test_a_hash_is_made_of_any_text() -> None:
    assert len(hash_token("\udcff")) == 64


def test_a_created_token_does_not_print_itself() -> None:
    assert "tg_secret" not in repr(CreatedToken(row=None, token="tg_secret"))  # type: ignore[arg-type] # only its repr
