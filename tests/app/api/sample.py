"""A small catalog in memory, with every kind of value that a record may hold."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from app.access.records import AccessRole, Identity, TokenId
from app.catalog.records import (
    DEFAULT_WORKSPACE,
    LlmModel,
    LlmModelStatus,
    LlmModelType,
    LlmProvider,
    SystemSetting,
)
from app.catalog.snapshot import Snapshot

Row = TypeVar("Row")

_START = datetime(2026, 1, 1, tzinfo=UTC)

ADMIN = Identity(TokenId("t"), DEFAULT_WORKSPACE, AccessRole.ADMIN, "admin")


def sample_snapshot(revision: int = 1, providers: int = 3, models: int = 5) -> Snapshot:
    """`models` per provider."""
    return Snapshot(
        revision,
        [_provider(number) for number in range(providers)],
        [_model(provider, number) for provider in range(providers) for number in range(models)],
        (),
        [
            SystemSetting("s1", "infra_model_a", {"modelId": "m0", "providerId": "p0"}, _START),
            SystemSetting("s2", "infra_model_gone", "p9:m9", _START),
            SystemSetting("s3", "other", [1, None, {"a": [True, 1.5, "x"]}], _START + timedelta(microseconds=7)),
        ],
    )


def _row(kind: type[Row], **values: Any) -> Row:
    """Fields that are not given are None."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # rows are dataclasses
    return kind(**(dict.fromkeys(names) | values))


def _provider(number: int) -> LlmProvider:
    return _row(
        LlmProvider,
        id=f"provider{number}",
        workspace_id=DEFAULT_WORKSPACE,
        name=f"p{number}",
        display_name=f'Provider "{number}" \u00e9\u4e2d',
        adapter="openai",
        base_url="https://example.org/v1" if number % 2 else None,
        max_parallel_requests=number + 1,
        requests_per_minute=60,
        tokens_per_minute=None if number else 2_000_000_000,
        is_enabled=number != 1,
        created_at=_START + timedelta(milliseconds=number),
        updated_at=_START + timedelta(microseconds=number),
    )


def _model(provider: int, number: int) -> LlmModel:
    return _row(
        LlmModel,
        id=f"model{provider}-{number}",
        workspace_id=DEFAULT_WORKSPACE,
        provider_id=f"provider{provider}",
        model_id=f"m{number}",
        display_name=f"Model {number}",
        description=None if number % 2 else "about\nit",
        model_type=LlmModelType.TEXT if number % 3 else LlmModelType.EMBEDDING,
        capabilities=("vision", "tools")[: number % 3],
        context_window=None if number == 1 else 1000 * number + 1,
        max_output_tokens=None if number % 2 else 4096,
        cost_input_per_million=None if number == 2 else Decimal("0.00875") * number,
        cost_output_per_million=None if number == 3 else Decimal("10.0000000000"),
        status=list(LlmModelStatus)[number % 3],
        is_default=number == 0,
        parameter_rules=[{"name": "temperature", "maximum": 1.5}] if number % 2 else None,
        allows_unknown_parameters=number == 4,
        read_timeout_seconds=2.5 if number else None,
        created_at=_START,
        updated_at=_START,
    )
