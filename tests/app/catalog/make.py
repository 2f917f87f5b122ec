"""Rows and snapshots without a database, for the pure rules."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from app.catalog.records import LlmModel, LlmModelStatus, LlmModelType, LlmProvider, ModelPrice, UsageUnit

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def provider(name: str, **changes: Any) -> LlmProvider:
    fields: dict[str, Any] = {
        "id": f"id-{name}",
        "workspace_id": "default",
        "name": name,
        "display_name": name.title(),
        "adapter": "openai",
        "base_url": None,
        "max_parallel_requests": 1,
        "requests_per_minute": 60,
        "tokens_per_minute": None,
        "is_enabled": True,
        "created_at": TIME,
        "updated_at": TIME,
    }
    return LlmProvider(**fields | changes)


def model(provider_name: str, model_id: str, **changes: Any) -> LlmModel:
    fields: dict[str, Any] = {
        "id": f"id-{provider_name}-{model_id}",
        "workspace_id": "default",
        "provider_id": f"id-{provider_name}",
        "model_id": model_id,
        "display_name": model_id,
        "description": None,
        "model_type": LlmModelType.TEXT,
        "capabilities": (),
        "context_window": None,
        "max_output_tokens": None,
        "cost_input_per_million": None,
        "cost_output_per_million": None,
        "status": LlmModelStatus.ACTIVE,
        "is_default": False,
        "parameter_rules": None,
        "allows_unknown_parameters": False,
        "connect_timeout_seconds": None,
        "read_timeout_seconds": None,
        "total_timeout_seconds": None,
        "created_at": TIME,
        "updated_at": TIME,
    }
    return LlmModel(**fields | changes)


def price(model_row_id: str, amount: str | None, at: datetime, unit: UsageUnit = UsageUnit.INPUT_TOKENS) -> ModelPrice:
    return ModelPrice(
        id=f"{model_row_id}-{unit}-{at.isoformat()}",
        model_id=model_row_id,
        unit=unit,
        price_per_million=None if amount is None else Decimal(amount),
        currency="USD",
        effective_at=at,
        created_at=at,
    )
