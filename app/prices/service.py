"""What a call would cost, at the prices of a given time."""

from __future__ import annotations

from datetime import datetime

from app.catalog.snapshot import Snapshot
from app.errors import NotFound, PriceUnknown
from app.prices.calculation import price_usage
from app.prices.records import CostReceipt, Usage


def estimate_cost(snapshot: Snapshot, model: str, usage: Usage, *, workspace_id: str, at: datetime) -> CostReceipt:
    """`model` is a ref or an id. Raises NotFound, ValidationError, and PriceUnknown where a used unit has no price."""
    found = snapshot.model(model)
    if found is None and (":" in model or model.startswith("#/")):
        found = snapshot.model_by_ref(model, workspace_id)
    if found is None or found.workspace_id != workspace_id:
        raise NotFound("LlmModel", model, path=("model",))
    model_id = found.id
    receipt = price_usage(usage, lambda unit: snapshot.price_at(model_id, unit, at))
    if receipt.total is None:
        unknown = ", ".join(line.unit for line in receipt.lines if line.amount is None)
        raise PriceUnknown(f"the price of {unknown} of {snapshot.ref(found)} is not known at {at.isoformat()}")
    return receipt
