"""Reads a request as far as it can be read: a call with its plan, or the refusal that it gets."""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass
from typing import Any

import pydantic

from app.providers.emulator.behaviour import Behaviour
from app.providers.emulator.directive import read_directive, request_key
from app.providers.emulator.plan import Plan, make_plan
from app.providers.emulator.provider import VirtualProvider
from app.providers.emulator.wire import Call, Head, Lookup, Operation, Refusal, Refused, WireProtocol

BODY_LIMIT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Target:
    provider: VirtualProvider
    protocol: WireProtocol
    operation: Operation[Any] | None
    lookup: Lookup | None
    """Either is set."""
    path: str
    """Without the provider's prefix."""


@dataclass(slots=True)
class Prepared:
    """Either `refusal` is set, or `call`, `behaviour` and `plan` all are."""

    key: str | None = None
    call: Call | None = None
    behaviour: Behaviour | None = None
    plan: Plan | None = None
    refusal: Refusal | None = None


def authorise(target: Target, head: Head) -> None:
    """Raises Refused."""
    credential = target.protocol.credential(head)
    if credential is None:
        raise Refused(target.protocol.refuse_credential(None))
    required = target.provider.settings.api_key
    if required is not None and not hmac.compare_digest(credential.encode(), required.get_secret_value().encode()):
        raise Refused(target.protocol.refuse_credential(credential))


def prepare(target: Target, operation: Operation[Any], head: Head, body: bytes | None, serial: str) -> Prepared:
    """`body` is None where it is larger than BODY_LIMIT_BYTES; `serial` is unique in this process."""
    prepared = Prepared()
    try:
        authorise(target, head)
        _read(target.provider, operation, head, body, serial, prepared)
    except Refused as refused:
        prepared.refusal = refused.refusal
    except pydantic.ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        prepared.refusal = Refusal(400, f"The call's directive is not valid: {problems}", code="invalid_directive")
    return prepared


def _read(
    provider: VirtualProvider,
    operation: Operation[Any],
    head: Head,
    body: bytes | None,
    serial: str,
    prepared: Prepared,
) -> None:
    if body is None:
        raise Refused(Refusal(413, f"The request is larger than {BODY_LIMIT_BYTES} bytes."))
    call = prepared.call = operation.read(head, body)
    directive = read_directive(call, head.headers)
    prepared.key = request_key(call, head.headers, directive)
    known = provider.settings.models
    if known and call.model not in known:
        raise Refused(Refusal(404, f"The model `{call.model}` does not exist.", param="model"))
    provider.saw_model(call.model)
    behaviour = prepared.behaviour = provider.behaviour(directive)
    prepared.plan = make_plan(
        call,
        behaviour,
        failing=provider.fails(behaviour, prepared.key or call.last_text),
        chance=provider.chance,
        answer_id=serial,
        created=int(time.time()),
    )
