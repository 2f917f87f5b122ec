"""Catalog rows for tests: a provider pointed at the emulator, and a model of it with prices."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from app.db.ids import new_id
from app.db.pool import Connection


@dataclass(frozen=True, slots=True)
class CatalogRow:
    provider_id: str
    model_id: str
    ref: str


async def insert_model(
    connection: Connection,
    *,
    provider: str = "acme",
    model: str = "chat-1",
    base_url: str | None = None,
    adapter: str = "openai",
    max_parallel: int = 8,
    requests_per_minute: int = 6000,
    tokens_per_minute: int | None = None,
    cost_input: Decimal | None = Decimal("2.5"),
    cost_output: Decimal | None = Decimal("10"),
    window_milliseconds: int | None = None,
    delivery_milliseconds: int | None = None,
) -> CatalogRow:
    """A provider of that name with one active model. The window of its limits can be shortened."""
    row = CatalogRow(new_id(), new_id(), f"{provider}:{model}")
    await connection.execute(
        """
        INSERT INTO llm_providers (id, workspace_id, name, display_name, adapter, base_url, max_parallel_requests,
                                   requests_per_minute, tokens_per_minute, updated_at)
        VALUES ($1, 'default', $2, $2, $3, $4, $5, $6, $7, now())
        """,
        row.provider_id,
        provider,
        adapter,
        base_url,
        max_parallel,
        requests_per_minute,
        tokens_per_minute,
    )
    await connection.execute(
        """
        INSERT INTO llm_models (id, workspace_id, provider_id, model_id, display_name, cost_input_per_million,
                                cost_output_per_million, max_output_tokens, updated_at)
        VALUES ($1, 'default', $2, $3, $3, $4, $5, 100000, now())
        """,
        row.model_id,
        row.provider_id,
        model,
        cost_input,
        cost_output,
    )
    if window_milliseconds is not None or delivery_milliseconds is not None:
        await connection.execute(
            """
            UPDATE limit_states SET window_milliseconds = coalesce($2, window_milliseconds),
                                    delivery_milliseconds = coalesce($3, delivery_milliseconds)
             WHERE provider_id = $1
            """,
            row.provider_id,
            window_milliseconds,
            delivery_milliseconds,
        )
    return row
