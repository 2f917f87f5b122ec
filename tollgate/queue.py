"""Calls in Tollgate's queue: they outlive the program that submits them, and any worker may run them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from tollgate.errors import NotFound, StillWaiting, ValidationError
from tollgate.records import CostLine, Request, RequestError, Usage
from tollgate.steps import ERROR_FRAGMENT, Pause, Steps, accepted, decimal, graphql, graphql_patiently

PER_OPERATION: Final = 25
"""Requests that are submitted or read in one GraphQL operation: the server bounds the aliases of one."""
_SHORTEST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0

_FIELDS: Final = """
fragment Fields on ModelRequest {
  id status modelRef outputText output metadata createdAt startedAt finishedAt
  usage { inputTokens outputTokens cacheReadTokens cacheWriteTokens }
  cost { total currency lines { unit quantity unitPrice amount } }
  error { code message retryable httpStatus }
}"""


def submission(
    model_id: str,
    prompt: Any,
    *,
    parameters: Mapping[str, Any],
    priority: int,
    idempotency_key: str | None,
    deadline: datetime | None,
    metadata: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The GraphQL input. A text, or what a model of another kind takes, is `input`; messages are `messages`."""
    if deadline is not None and deadline.tzinfo is None:
        raise ValidationError(f"deadline must have a time zone, not {deadline.isoformat()}", path=("deadline",))
    fields: dict[str, Any] = {"model": model_id, "priority": priority, "parameters": dict(parameters)}
    # With a key of its own a submission can be sent again without being run twice.
    fields["idempotencyKey"] = idempotency_key or f"python-{uuid.uuid4().hex}"
    if deadline is not None:
        fields["deadline"] = deadline.isoformat()
    if metadata is not None:
        fields["metadata"] = dict(metadata)
    if _are_messages(prompt):
        return {**fields, "messages": [_message(index, message) for index, message in enumerate(prompt)]}
    return {**fields, "input": prompt}


def submit(submissions: Sequence[Mapping[str, Any]]) -> Steps[list[Request]]:
    """In order. Raises the first refusal: what was submitted before it stays so."""
    submitted: list[Request] = []
    for start in range(0, len(submissions), PER_OPERATION):
        part = submissions[start : start + PER_OPERATION]
        declared = ", ".join(f"$i{number}: SubmitRequestInput!" for number in range(len(part)))
        fields = "\n".join(
            f"r{number}: submitRequest(input: $i{number}) {{ ...Result }}" for number in range(len(part))
        )
        query = (
            f"mutation({declared}) {{\n{fields}\n}}"
            f" fragment Result on SubmitRequestResult {{ __typename ... on ModelRequest {{ ...Fields }}"
            f" {ERROR_FRAGMENT} ... on ModelUnavailable {{ alternatives }} }}{_FIELDS}"
        )
        data = yield from graphql_patiently(query, {f"i{number}": item for number, item in enumerate(part)})
        submitted += [_request(accepted(data[f"r{number}"])) for number in range(len(part))]
    return submitted


def submit_one(item: Mapping[str, Any]) -> Steps[Request]:
    (request,) = yield from submit([item])
    return request


def get_requests(ids: Sequence[str]) -> Steps[list[Request]]:
    """In order. Raises NotFound."""
    found: list[Request] = []
    for start in range(0, len(ids), PER_OPERATION):
        part = ids[start : start + PER_OPERATION]
        declared = ", ".join(f"$i{number}: ID!" for number in range(len(part)))
        fields = "\n".join(f"r{number}: request(id: $i{number}) {{ ...Fields }}" for number in range(len(part)))
        data = yield from graphql_patiently(
            f"query({declared}) {{\n{fields}\n}}{_FIELDS}", {f"i{number}": id for number, id in enumerate(part)}
        )
        for number, id in enumerate(part):
            if data[f"r{number}"] is None:
                raise NotFound(f"no ModelRequest {id!r}", path=("id",))
            found.append(_request(data[f"r{number}"]))
    return found


def get_request(id: str) -> Steps[Request]:
    (request,) = yield from get_requests([id])
    return request


def cancel(id: str) -> Steps[Request]:
    data = yield from graphql(
        "mutation($id: ID!) { result: cancelRequest(id: $id) { __typename ... on ModelRequest { ...Fields }"
        f" {ERROR_FRAGMENT} }} }}{_FIELDS}",
        {"id": id},
    )
    return _request(accepted(data["result"]))


def wait(ids: Sequence[str], timeout_seconds: float | None) -> Steps[list[Request]]:
    """Asks ever less often, for a part at a time: those that were submitted first are sooner done."""
    ends_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    finished: list[Request] = []
    pause = _SHORTEST_PAUSE_SECONDS
    for start in range(0, len(ids), PER_OPERATION):
        while True:
            part = yield from get_requests(ids[start : start + PER_OPERATION])
            waiting = [request for request in part if not request.is_finished]
            if not waiting:
                break
            if ends_at is not None and time.monotonic() + pause > ends_at:
                raise StillWaiting(
                    f"the request {waiting[0].id} was {waiting[0].status} after {timeout_seconds:g} s",
                    request_id=waiting[0].id,
                )
            yield Pause(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
        finished += part
    return finished


def wait_one(id: str, timeout_seconds: float | None) -> Steps[Request]:
    (request,) = yield from wait([id], timeout_seconds)
    return request


def _are_messages(prompt: Any) -> bool:
    return (
        isinstance(prompt, (list, tuple))
        and bool(prompt)
        and all(isinstance(item, Mapping) and "role" in item for item in prompt)
    )


def _message(index: int, message: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(message.get("content"), str) or set(message) != {"role", "content"}:
        raise ValidationError(
            f"messages[{index}] must be a role and a text as its content, in the queue", path=("messages",)
        )
    return {"role": str(message["role"]).upper(), "content": message["content"]}


def _request(row: Mapping[str, Any]) -> Request:
    usage, cost, error = row["usage"], row["cost"], row["error"]
    return Request(
        id=row["id"],
        status=row["status"],
        model=row["modelRef"],
        data=row["outputText"],
        output=row["output"],
        usage=None
        if usage is None
        else Usage(usage["inputTokens"], usage["outputTokens"], usage["cacheReadTokens"], usage["cacheWriteTokens"]),
        cost=None if cost is None else decimal(cost["total"]),
        currency=None if cost is None else cost["currency"],
        lines=() if cost is None else tuple(_cost_line(line) for line in cost["lines"]),
        error=None
        if error is None
        else RequestError(error["code"], error["message"], error["retryable"], error["httpStatus"]),
        metadata=row["metadata"],
        created_at=datetime.fromisoformat(row["createdAt"]),
        started_at=_moment(row["startedAt"]),
        finished_at=_moment(row["finishedAt"]),
    )


def _cost_line(line: Mapping[str, Any]) -> CostLine:
    quantity, amount = decimal(line["quantity"]), decimal(line["amount"])
    assert quantity is not None
    assert amount is not None
    return CostLine(line["unit"], quantity, decimal(line["unitPrice"]), amount)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
