"""Bearer tokens against an in-memory set of the valid ones, kept fresh by NOTIFY."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from app.access import repository
from app.access.records import AccessToken, Identity, TokenId, WorkspaceId
from app.access.tokens import MAX_LENGTH, hash_token, same_hash
from app.db.listen import ACCESS, Listener
from app.db.pool import Database
from app.db.trouble import DATABASE_TROUBLE
from app.errors import DatabaseUnavailable, Unauthenticated

_log = structlog.get_logger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Known:
    identity: Identity
    token_hash: str
    expires_at: datetime | None


class Authenticator:
    """Says whose a token is.

    A revocation, in whichever process, is announced by NOTIFY; from that moment memory is not trusted until it is
    read anew. While the listener is down, or there is none, the database is asked each time.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = _utc_now) -> None:
        self._database = database
        self._clock = clock
        self._listener: Listener | None = None
        self._known: dict[str, _Known] = {}
        self._revision = 0
        self._announced = 0
        self._reading = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def is_fresh(self) -> bool:
        """Whether memory may be trusted."""
        return self._listener is not None and self._listener.is_connected and self._revision >= self._announced

    def attach(self, listener: Listener) -> None:
        """To be called before `listener.start()`, which then reads the tokens."""
        self._listener = listener
        listener.subscribe(ACCESS, self._on_notice)
        listener.on_connect(self.refresh)

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """`callback` is called whenever the tokens were read anew (a long connection then checks its token again).

        The answer ends that.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def authenticate_from_memory(self, token: str) -> Identity | None:
        """The fast path. None: memory cannot be trusted now, so await `authenticate`. Raises Unauthenticated."""
        return self._look_up(token) if self.is_fresh else None

    async def authenticate(self, token: str) -> Identity:
        """Raises Unauthenticated, and DatabaseUnavailable where that cannot be told."""
        if self.is_fresh:
            return self._look_up(token)
        try:
            if self._listener is not None and self._listener.is_connected:
                await self.refresh(self._announced)
                return self._look_up(token)
            return await self._ask_database(token)
        except DATABASE_TROUBLE as error:
            raise DatabaseUnavailable(f"access tokens cannot be checked: {type(error).__name__}") from None

    async def refresh(self, at_least: int | None = None) -> None:
        """Reads all tokens, unless memory holds revision `at_least` by then."""
        async with self._reading:
            if at_least is not None and self._revision >= at_least:
                return
            async with self._database.connection() as connection:
                # The revision first: the tokens are then at least as new as it says.
                revision = await repository.read_revision(connection)
                tokens = await repository.unrevoked_tokens(connection)
            self._known = {row.token_hash: _known(row) for row in tokens}
            self._revision = revision
        for callback in tuple(self._callbacks):
            callback()

    async def stop(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    def _look_up(self, token: str) -> Identity:
        # Found by its hash, so the time of the lookup tells nothing of the token itself.
        token_hash = _checked_hash(token)
        return self._accept(self._known.get(token_hash), token_hash)

    async def _ask_database(self, token: str) -> Identity:
        token_hash = _checked_hash(token)
        async with self._database.connection() as connection:
            row = await repository.find_by_hash(connection, token_hash)
        return self._accept(None if row is None or row.revoked_at is not None else _known(row), token_hash)

    def _accept(self, known: _Known | None, token_hash: str) -> Identity:
        if (
            known is None
            or not same_hash(known.token_hash, token_hash)
            or (known.expires_at is not None and known.expires_at <= self._clock())
        ):
            raise Unauthenticated("the access token is not valid, has expired or was revoked")
        return known.identity

    def _on_notice(self, payload: str) -> None:
        self._announced = max(self._announced, int(payload))
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow(), name="access follower")

    async def _follow(self) -> None:
        try:
            while self._revision < (announced := self._announced):
                await self.refresh(announced)
                # A notice comes after its commit, so what was read just now is all there is.
                if self._revision < announced == self._announced:
                    self._announced = self._revision
        except DATABASE_TROUBLE as error:
            # Nothing is lost: until a refresh succeeds, each authentication attempts one.
            _log.warning("access_refresh_failed", error=str(error))


def _checked_hash(token: str) -> str:
    if not 1 <= len(token) <= MAX_LENGTH:
        raise Unauthenticated("an access token is needed: Authorization: Bearer <token>")
    return hash_token(token)


def _known(row: AccessToken) -> _Known:
    identity = Identity(TokenId(row.id), WorkspaceId(row.workspace_id), row.role, row.name)
    return _Known(identity, row.token_hash, row.expires_at)
