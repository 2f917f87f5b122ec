"""Every error that Tollgate raises on purpose.

TollgateError                    code, message, path
├── ConfigurationError           the environment or the command line; the process ends with exit code 2
├── DatabaseError                the database cannot be used
│   ├── DatabaseUnavailable      it does not answer, or is too old
│   └── MigrationError           its schema cannot be brought up to date
├── RequestRefused               a caller's mistake; each becomes a typed error of the GraphQL API
│   ├── ValidationError          a field's value is out of bounds: names field, value and bound
│   ├── NotFound
│   ├── Conflict                 what is there already forbids it
│   ├── ModelUnavailable         deprecated, inactive or its provider disabled; names the alternatives
│   ├── PriceUnknown             no price is known for what was asked; never taken for zero
│   ├── Unauthenticated          no token, or none that is valid
│   └── Forbidden                the token's role does not allow it
└── ProviderError                a call of a provider failed: http_status, retry_after_seconds, provider_request_id
    ├── InvalidRequest           400, 422: the provider does not accept what was sent
    │   └── PayloadTooLarge      413
    ├── AuthenticationFailed     401: the credential is missing or wrong
    ├── PermissionDenied         403
    ├── ModelNotFound            404
    ├── ProviderConflict         409
    ├── RateLimited              429
    ├── ProviderUnavailable      5xx
    ├── CallTimeout              408, or no answer within the call's time
    ├── ConnectionFailed         no connection, or it broke before the answer was whole
    ├── InvalidResponse          an answer that the protocol does not allow
    ├── PermitExpired            the call could not be sent while its permit held; nothing was sent
    ├── CallCancelled            the caller asked for it
    └── LeaseLost                another worker may hold the request now
"""

from __future__ import annotations

from collections.abc import Sequence


class TollgateError(Exception):
    """Base of all. `code` is stable and machine-readable; `path` names the offending input, outermost first."""

    code = "INTERNAL"

    def __init__(self, message: str, *, path: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.path = tuple(path)


class ConfigurationError(TollgateError):
    code = "CONFIGURATION"


class DatabaseError(TollgateError):
    code = "DATABASE"


class DatabaseUnavailable(DatabaseError):
    code = "DATABASE_UNAVAILABLE"


class MigrationError(DatabaseError):
    code = "MIGRATION"


class RequestRefused(TollgateError):
    code = "REFUSED"


class ValidationError(RequestRefused):
    """`field` as the caller wrote it, `value` as printed (never a secret), `bound` in words: "at least 1"."""

    code = "VALIDATION"

    def __init__(self, field: str, value: object, bound: str, *, path: Sequence[str] = ()) -> None:
        shown = repr(value)
        if len(shown) > 120:
            shown = shown[:117] + "..."
        super().__init__(f"{field} must be {bound}, not {shown}", path=path or (field,))
        self.field = field
        self.value = value
        self.bound = bound


class NotFound(RequestRefused):
    """`kind` is the type's name ("LlmModel"), `key` what was looked for."""

    code = "NOT_FOUND"

    def __init__(self, kind: str, key: str, *, path: Sequence[str] = ()) -> None:
        super().__init__(f"no {kind} {key!r}", path=path)
        self.kind = kind
        self.key = key


class Conflict(RequestRefused):
    code = "CONFLICT"


class ModelUnavailable(RequestRefused):
    """`alternatives` are refs ("openai:gpt-4o") of usable models, best first; empty where there are none."""

    code = "MODEL_UNAVAILABLE"

    def __init__(self, ref: str, reason: str, alternatives: Sequence[str] = (), *, path: Sequence[str] = ()) -> None:
        instead = f"; use {', '.join(alternatives)}" if alternatives else ""
        super().__init__(f"model {ref!r} cannot be used: {reason}{instead}", path=path)
        self.ref = ref
        self.alternatives = tuple(alternatives)


class PriceUnknown(RequestRefused):
    code = "PRICE_UNKNOWN"


class Unauthenticated(RequestRefused):
    code = "UNAUTHENTICATED"


class Forbidden(RequestRefused):
    code = "FORBIDDEN"


class ProviderError(TollgateError):
    """A failed call. `message` is safe to store and show: it never holds a credential."""

    code = "PROVIDER"

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        retry_after_seconds: float | None = None,
        provider_request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.retry_after_seconds = retry_after_seconds
        self.provider_request_id = provider_request_id


class InvalidRequest(ProviderError):
    code = "INVALID_REQUEST"


class PayloadTooLarge(InvalidRequest):
    code = "PAYLOAD_TOO_LARGE"


class AuthenticationFailed(ProviderError):
    code = "AUTHENTICATION_FAILED"


class PermissionDenied(ProviderError):
    code = "PERMISSION_DENIED"


class ModelNotFound(ProviderError):
    code = "MODEL_NOT_FOUND"


class ProviderConflict(ProviderError):
    code = "PROVIDER_CONFLICT"


class RateLimited(ProviderError):
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
    code = "LEASE_LOST"
