"""Calls in Tollgate's queue: they outlive the program that submits them, and any worker may run them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from tollgate.errors import LimitExceeded, NotFound, RequestRefused, StillWaiting, ValidationError
from tollgate.records import FINISHED, CostLine, Request, RequestError, Usage
from tollgate.steps import ERROR_FRAGMENT, Pause, Steps, accepted, decimal, graphql, graphql_patiently

BATCH_SIZE: Final = 1000
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Of what is submitted at once, unless one alone is more: the server's bounds are 10,000 and 10 MiB."""
READ_SIZE: Final = 100
"""Requests that are read at once."""
_ROLES: Final = frozenset({"system", "user", "assistant", "tool"})
_SHORTEST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0

_FIELDS: Final = """
fragment Fields on ModelRequest {
  id status modelRef outputText output metadata createdAt startedAt finishedAt
  usage { inputTokens outputTokens cacheReadTokens cacheWriteTokens }
  cost { total currency lines { unit quantity unitPrice amount } }
  error { code message retryable httpStatus }
}"""
_REFUSAL: Final = f"{ERROR_FRAGMENT} ... on ModelUnavailable {{ alternatives }}"
_SUBMIT: Final = (
    "mutation($input: SubmitRequestInput!) { result: submitRequest(input: $input)"
    f" {{ __typename ... on ModelRequest {{ ...Fields }} {_REFUSAL} }} }}{_FIELDS}"
)
_SUBMIT_MANY: Final = (
    "mutation($inputs: [SubmitRequestInput!]!) { result: submitRequests(inputs: $inputs)"
    f" {{ __typename ... on SubmittedRequests {{ requests {{ ...Fields }} }} {_REFUSAL} }} }}{_FIELDS}"
)
_READ: Final = "query($ids: [ID!]!, $first: Int!) { requests(filter: {ids: $ids}, first: $first) { nodes"


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


def submissions(model_id: str, prompts: Sequence[Any], **fields: Any) -> list[dict[str, Any]]:
    """One for each prompt, with keys of their own. Raises ValidationError, which names the prompt."""
    items: list[dict[str, Any]] = []
    for prompt in prompts:
        try:
            items.append(submission(model_id, prompt, idempotency_key=None, **fields))
        except ValidationError as error:
            raise _placed(error, len(items), error.path) from None
    return items


def submit(items: Sequence[Mapping[str, Any]]) -> Steps[list[Request]]:
    """In order. Raises the first refusal, which names its prompt: the batches before that one's are submitted."""
    submitted: list[Request] = []
    for batch in _batches(items):
        submitted += yield from _submit_batch(batch, len(submitted))
    return submitted


def _batches(items: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    start = size = 0
    for place, item in enumerate(items):
        more = len(json.dumps(item))
        if place > start and (place - start >= BATCH_SIZE or size + more > BATCH_BYTES):
            yield items[start:place]
            start, size = place, 0
        size += more
    if items:
        yield items[start:]


def _submit_batch(batch: Sequence[Mapping[str, Any]], start: int) -> Steps[list[Request]]:
    """`start`: how many prompts are before it."""
    try:
        data = yield from graphql_patiently(_SUBMIT_MANY, {"inputs": batch})
        rows = accepted(data["result"])["requests"]
    except LimitExceeded as error:
        if len(batch) == 1:
            raise _placed(error, start, ()) from None
        # This server takes less at once than most do.
        middle = len(batch) // 2
        before = yield from _submit_batch(batch[:middle], start)
        return before + (yield from _submit_batch(batch[middle:], start + middle))
    except RequestRefused as error:
        if len(error.path) < 2 or error.path[0] != "inputs":
            raise
        raise _placed(error, start + int(error.path[1]), error.path[2:]) from None
    return [_request(row) for row in rows]


def _placed(error: RequestRefused, place: int, path: Sequence[str]) -> RequestRefused:
    error.path = ("prompts", str(place), *path)
    error.message = f"prompts[{place}]: {error.message}"
    error.args = (error.message,)
    return error


def submit_one(item: Mapping[str, Any]) -> Steps[Request]:
    data = yield from graphql_patiently(_SUBMIT, {"input": item})
    return _request(accepted(data["result"]))


def get_requests(ids: Sequence[str]) -> Steps[list[Request]]:
    """In order. Raises NotFound."""
    found: list[Request] = []
    for start in range(0, len(ids), READ_SIZE):
        part = ids[start : start + READ_SIZE]
        rows = yield from _read(part, "{ ...Fields } } }" + _FIELDS)
        found += [_request(rows[id]) for id in part]
    return found


def _read(ids: Sequence[str], selection: str) -> Steps[dict[str, Any]]:
    """The rows of up to READ_SIZE requests, by id. Raises NotFound."""
    data = yield from graphql_patiently(f"{_READ} {selection}", {"ids": ids, "first": len(ids)})
    rows = {row["id"]: row for row in data["requests"]["nodes"]}
    for id in ids:
        if id not in rows:
            raise NotFound(f"no ModelRequest {id!r}", path=("id",))
    return rows


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
    pause = _SHORTEST_PAUSE_SECONDS
    for start in range(0, len(ids), READ_SIZE):
        waiting = ids[start : start + READ_SIZE]
        while True:
            rows = yield from _read(waiting, "{ id status } } }")
            waiting = [id for id in waiting if rows[id]["status"] not in FINISHED]
            if not waiting:
                break
            if ends_at is not None and time.monotonic() + pause > ends_at:
                status = rows[waiting[0]]["status"]
                raise StillWaiting(
                    f"the request {waiting[0]} was {status} after {timeout_seconds:g} s", request_id=waiting[0]
                )
            yield Pause(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
    return (yield from get_requests(ids))


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
    if str(message["role"]).lower() not in _ROLES:
        raise ValidationError(
            f"messages[{index}].role must be one of {', '.join(sorted(_ROLES))}, not {message['role']!r}",
            path=("messages",),
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
