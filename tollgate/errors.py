"""Every error that this package raises on purpose: all are TollgateError, told apart by class or by `code`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final


class TollgateError(Exception):
    """Base of all.

    `code` is stable and machine-readable. `field` names the offending input ("temperature") and `path` leads to it;
    `request_id` is that of the call in Tollgate, where it came to one.
    """

    code = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        path: Sequence[str] = (),
        request_id: str | None = None,
        http_status: int | None = None,
        retry_after_seconds: float | None = None,
        alternatives: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = tuple(path)
        self.request_id = request_id
        self.http_status = http_status
        self.retry_after_seconds = retry_after_seconds
        self.alternatives = tuple(alternatives)
        """Usable models, best first, where the error is that a model cannot be used."""

    @property
    def field(self) -> str | None:
        return ".".join(self.path) or None


class ConfigurationError(TollgateError):
    """It is not known where a server is, or the embedded one does not start."""

    code = "CONFIGURATION"


class ServerUnreachable(TollgateError):
    """The Tollgate server does not answer, or its answer broke off: a call may have been made all the same."""

    code = "SERVER_UNREACHABLE"


class StillWaiting(TollgateError):
    """A queued request had not finished within the time that was given to `wait`. It goes on."""

    code = "STILL_WAITING"


class DatabaseUnavailable(TollgateError):
    """The server's database does not answer."""

    code = "DATABASE_UNAVAILABLE"


class RequestRefused(TollgateError):
    """What was asked for cannot be done; nothing was sent to a provider."""

    code = "REFUSED"


class ValidationError(RequestRefused):
    """A value is out of bounds: `field` names it, the message says value and bound."""

    code = "VALIDATION"


class NotFound(RequestRefused):
    code = "NOT_FOUND"


class Conflict(RequestRefused):
    code = "CONFLICT"


class ModelUnavailable(RequestRefused):
    """The model is deprecated, inactive, or its provider is disabled."""

    code = "MODEL_UNAVAILABLE"


class PriceUnknown(RequestRefused):
    code = "PRICE_UNKNOWN"


class Unauthenticated(RequestRefused):
    """There is no token, or the server does not accept it."""

    code = "UNAUTHENTICATED"


class Forbidden(RequestRefused):
    """The token's role does not allow it."""

    code = "FORBIDDEN"


class LimitExceeded(RequestRefused):
    """The request is larger than the server takes."""

    code = "LIMIT_EXCEEDED"


class ProviderError(TollgateError):
    """A provider's call failed, after the attempts that it had."""

    code = "PROVIDER"


class InvalidRequest(ProviderError):
    """The provider does not accept what was sent."""

    code = "INVALID_REQUEST"


class PayloadTooLarge(InvalidRequest):
    code = "PAYLOAD_TOO_LARGE"


class AuthenticationFailed(ProviderError):
    """The provider's key is missing at the server, or wrong."""

    code = "AUTHENTICATION_FAILED"


class PermissionDenied(ProviderError):
    code = "PERMISSION_DENIED"


class ModelNotFound(ProviderError):
    """The provider does not know the model."""

    code = "MODEL_NOT_FOUND"


class ProviderConflict(ProviderError):
    code = "PROVIDER_CONFLICT"


class RateLimited(ProviderError):
    """No permit came free within `wait_seconds`, or the provider refused; see `retry_after_seconds`."""

    code = "RATE_LIMITED"


class ProviderUnavailable(ProviderError):
    code = "PROVIDER_UNAVAILABLE"


class CallTimeout(ProviderError):
    code = "TIMEOUT"


class ConnectionFailed(ProviderError):
    code = "CONNECTION_FAILED"


class InvalidResponse(ProviderError):
    code = "INVALID_RESPONSE"


class PermitExpired(ProviderError):
    code = "PERMIT_EXPIRED"


class CallCancelled(ProviderError):
    code = "CANCELLED"


class LeaseLost(ProviderError):
    """The server lost the call: how it ended is not known."""

    code = "LEASE_LOST"


def _with_children(kind: type[TollgateError]) -> list[type[TollgateError]]:
    return [kind, *(child for direct in kind.__subclasses__() for child in _with_children(direct))]


_BY_CODE: Final = {kind.code: kind for kind in _with_children(TollgateError)}


def error_of(
    code: str,
    message: str,
    *,
    path: Sequence[str] = (),
    request_id: str | None = None,
    http_status: int | None = None,
    retry_after_seconds: float | None = None,
    alternatives: Sequence[str] = (),
) -> TollgateError:
    """The error of a code. One that this version does not know is a TollgateError with that code."""
    kind = _BY_CODE.get(code, TollgateError)
    error = kind(
        message,
        path=path,
        request_id=request_id,
        http_status=http_status,
        retry_after_seconds=retry_after_seconds,
        alternatives=alternatives,
    )
    error.code = code
    return error
