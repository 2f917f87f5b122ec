"""What was used over a time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

from tollgate.errors import ValidationError
from tollgate.records import Usage, UsageLine, UsageSummary
from tollgate.steps import Steps, graphql

_QUERY: Final = """
query($model: String, $from: DateTime, $to: DateTime) {
  usageSummary(model: $model, from: $from, to: $to) {
    requests calls estimatedCalls unpricedCalls total currency lines { unit quantity amount }
  }
}"""


def usage_summary(model_id: str | None, since: datetime | None, until: datetime | None) -> Steps[UsageSummary]:
    data = yield from graphql(
        _QUERY, {"model": model_id, "from": _moment("since", since), "to": _moment("until", until)}
    )
    found = data["usageSummary"]
    lines = tuple(
        UsageLine(line["unit"], Decimal(line["quantity"]), Decimal(line["amount"])) for line in found["lines"]
    )
    return UsageSummary(
        model_id=model_id,
        requests=found["requests"],
        calls=found["calls"],
        estimated_calls=found["estimatedCalls"],
        unpriced_calls=found["unpricedCalls"],
        usage=_tokens({line.unit: int(line.quantity) for line in lines if line.unit.endswith("_TOKENS")}),
        cost=Decimal(found["total"]),
        currency=found["currency"],
        lines=lines,
    )


def _tokens(units: Mapping[str, int]) -> Usage:
    """The ledger has each token once; a Usage counts the cached ones among the input too."""
    read, written = units.get("CACHE_READ_TOKENS", 0), units.get("CACHE_WRITE_TOKENS", 0)
    return Usage(
        input_tokens=units.get("INPUT_TOKENS", 0) + read + written,
        output_tokens=units.get("OUTPUT_TOKENS", 0),
        cache_read_tokens=read,
        cache_write_tokens=written,
    )


def _moment(name: str, moment: datetime | None) -> str | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValidationError(f"{name} must have a time zone, not {moment.isoformat()}", path=(name,))
    return moment.isoformat()
