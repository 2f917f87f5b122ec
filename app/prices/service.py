"""What a call would cost, at the prices of a given time."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final

from app.catalog.resolution import find_model
from app.catalog.snapshot import Snapshot
from app.errors import PriceUnknown, ValidationError
from app.money import normalize, print_decimal
from app.prices.calculation import price_usage
from app.prices.records import CostReceipt, Usage

_MAX_SECONDS: Final = Decimal(10) ** 10
_SECONDS_SCALE: Final = 2


def estimate_cost(snapshot: Snapshot, model: str, usage: Usage, *, workspace_id: str, at: datetime) -> CostReceipt:
    """`model` is a ref or an id. Raises NotFound, ValidationError, and PriceUnknown where a used unit has no price."""
    if usage.seconds >= _MAX_SECONDS or int(normalize(usage.seconds).as_tuple().exponent) < -_SECONDS_SCALE:
        bound = f"below {_MAX_SECONDS}, with at most {_SECONDS_SCALE} decimals"
        raise ValidationError("usage.seconds", print_decimal(usage.seconds), bound)
    found = find_model(snapshot, model, workspace_id)
    model_id = found.id
    receipt = price_usage(usage, lambda unit: snapshot.price_at(model_id, unit, at))
    if receipt.total is None:
        unknown = ", ".join(line.unit for line in receipt.lines if line.amount is None)
        raise PriceUnknown(
            f"the price of {unknown} of {snapshot.ref(found)} is not known at {at.isoformat()}", path=("model",)
        )
    return receipt
