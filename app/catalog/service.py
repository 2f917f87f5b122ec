"""Changes of the catalog. Each returns when this process's snapshot holds it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import asyncpg

from app.catalog import repository, validation
from app.catalog.changes import model_values, provider_values
from app.catalog.records import (
    DEFAULT_WORKSPACE,
    CreateModel,
    CreateProvider,
    LlmModel,
    LlmModelStatus,
    LlmProvider,
    ModelPrice,
    PriceInput,
    UpdateModel,
    UpdateProvider,
    UsageUnit,
)
from app.catalog.references import format_model_ref
from app.catalog.snapshots import SnapshotHolder
from app.db.ids import new_id
from app.db.pool import Connection, Database
from app.errors import Conflict, ModelUnavailable, NotFound, ValidationError

LIST_PRICED: Final = (UsageUnit.INPUT_TOKENS, UsageUnit.OUTPUT_TOKENS)
"""Units whose price is a column of the model, from which a trigger appends the dated one."""


class CatalogService:
    """Raises ValidationError, NotFound and Conflict; then nothing is changed.

    A row of another workspace is not found. With `adapters`, a provider's adapter must be one of them.
    """

    def __init__(
        self, database: Database, snapshots: SnapshotHolder, *, adapters: Collection[str] | None = None
    ) -> None:
        self._database = database
        self._snapshots = snapshots
        self._adapters = adapters

    async def create_provider(self, create: CreateProvider, *, workspace_id: str = DEFAULT_WORKSPACE) -> LlmProvider:
        values = self._provider_values(create)
        try:
            async with self._changing() as connection:
                return await repository.insert_provider(
                    connection, {"id": new_id(), "workspace_id": workspace_id, **values}
                )
        except asyncpg.UniqueViolationError:
            raise Conflict(f"a provider named {create.name!r} exists already", path=("name",)) from None
        except asyncpg.ForeignKeyViolationError:
            raise NotFound("Workspace", workspace_id) from None

    async def update_provider(
        self, id: str, update: UpdateProvider, *, workspace_id: str = DEFAULT_WORKSPACE
    ) -> LlmProvider:
        values = self._provider_values(update)
        async with self._changing() as connection:
            provider = await _locked_provider(connection, id, workspace_id)
            return await repository.update_provider(connection, id, values) if values else provider

    async def delete_provider(self, id: str, *, workspace_id: str = DEFAULT_WORKSPACE) -> LlmProvider:
        """Deletes its models too. Raises Conflict while requests of it are unfinished."""
        async with self._changing() as connection:
            provider = await _locked_provider(connection, id, workspace_id)
            await repository.lock_models(connection, provider_id=id)
            unfinished = await repository.count_unfinished_requests(connection, provider_id=id)
            if unfinished:
                raise Conflict(_unfinished(f"provider {provider.name!r}", unfinished), path=("id",))
            await repository.delete_provider(connection, id)
        return provider

    async def create_model(self, create: CreateModel, *, workspace_id: str = DEFAULT_WORKSPACE) -> LlmModel:
        """A new default model replaces the provider's old one."""
        values = model_values(create)
        try:
            async with self._changing() as connection:
                await _locked_provider(connection, create.provider_id, workspace_id, field="providerId")
                if create.is_default:
                    await repository.clear_default(connection, create.provider_id)
                return await repository.insert_model(
                    connection, {"id": new_id(), "workspace_id": workspace_id, **values}
                )
        except asyncpg.UniqueViolationError:
            raise Conflict(f"the provider has a model {create.model_id!r} already", path=("modelId",)) from None

    async def update_model(self, id: str, update: UpdateModel, *, workspace_id: str = DEFAULT_WORKSPACE) -> LlmModel:
        return await self._write_model(id, model_values(update), workspace_id)

    async def deprecate_model(self, id: str, *, workspace_id: str = DEFAULT_WORKSPACE) -> LlmModel:
        """It stays readable, takes no more submissions and is no longer its provider's default."""
        return await self.update_model(id, UpdateModel(status=LlmModelStatus.DEPRECATED), workspace_id=workspace_id)

    async def reactivate_model(self, id: str, *, workspace_id: str = DEFAULT_WORKSPACE) -> LlmModel:
        """Makes a deprecated or inactive model active; it does not become the default again by that."""
        return await self.update_model(id, UpdateModel(status=LlmModelStatus.ACTIVE), workspace_id=workspace_id)

    async def set_default_model(self, id: str, *, workspace_id: str = DEFAULT_WORKSPACE) -> LlmModel:
        """The provider's other default ends in the same transaction. Raises ModelUnavailable unless it is active."""
        async with self._changing() as connection:
            provider, model = await _locked_model(connection, id, workspace_id)
            if model.status is not LlmModelStatus.ACTIVE:
                raise ModelUnavailable(
                    format_model_ref(provider.name, model.model_id),
                    f"it is {model.status.lower()}, so it cannot be the default",
                    self._snapshots.current.alternatives(model),
                    path=("id",),
                )
            if model.is_default:
                return model
            await repository.clear_default(connection, model.provider_id)
            return await repository.update_model(connection, id, {"is_default": True})

    async def delete_model(self, id: str, *, workspace_id: str = DEFAULT_WORKSPACE) -> LlmModel:
        """Raises Conflict while requests of it are unfinished."""
        async with self._changing() as connection:
            provider, model = await _locked_model(connection, id, workspace_id)
            await repository.lock_models(connection, provider_id=provider.id, id=id)
            unfinished = await repository.count_unfinished_requests(connection, model_id=id)
            if unfinished:
                shown = f"model {format_model_ref(provider.name, model.model_id)!r}"
                raise Conflict(_unfinished(shown, unfinished), path=("id",))
            await repository.delete_model(connection, id)
        return model

    async def set_price(
        self,
        model_id: str,
        unit: UsageUnit,
        price_per_million: PriceInput | None,
        *,
        effective_at: datetime | None = None,
        workspace_id: str = DEFAULT_WORKSPACE,
    ) -> ModelPrice:
        """Appends a price, in force from `effective_at` or else from now on. None: not known from then on.

        Raises Conflict where the model has one of that very time.
        """
        price = validation.optional_price(price_per_million, "pricePerMillion")
        if unit in LIST_PRICED:
            bound = "another unit: updateLlmModel sets the list prices of input and output tokens"
            raise ValidationError("unit", unit.value, bound)
        try:
            async with self._changing() as connection:
                await _locked_model(connection, model_id, workspace_id, field="modelId")
                return await repository.insert_price(
                    connection, model_id, unit, price, id=new_id(), effective_at=effective_at
                )
        except asyncpg.UniqueViolationError:
            assert effective_at is not None
            raise Conflict(
                f"the model has a price of {unit} from {effective_at.isoformat()} on already, and prices never change",
                path=("effectiveAt",),
            ) from None

    async def _write_model(self, id: str, values: dict[str, Any], workspace_id: str) -> LlmModel:
        async with self._changing() as connection:
            _, model = await _locked_model(connection, id, workspace_id)
            return await repository.update_model(connection, id, values) if values else model

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[Connection]:
        async with self._database.transaction() as connection:
            await repository.lock_catalog(connection)
            yield connection
            revision = await repository.read_revision(connection)
        await self._snapshots.refresh(at_least=revision)

    def _provider_values(self, change: CreateProvider | UpdateProvider) -> dict[str, Any]:
        values = provider_values(change)
        adapter = values.get("adapter")
        if adapter is not None and self._adapters is not None and adapter not in self._adapters:
            raise ValidationError("adapter", adapter, f"one of {', '.join(sorted(self._adapters))}")
        return values


async def _locked_provider(connection: Connection, id: str, workspace_id: str, field: str = "id") -> LlmProvider:
    provider = await repository.lock_provider(connection, id, workspace_id) if id.isprintable() else None
    if provider is None:
        raise NotFound("LlmProvider", id, path=(field,))
    return provider


async def _locked_model(
    connection: Connection, id: str, workspace_id: str, field: str = "id"
) -> tuple[LlmProvider, LlmModel]:
    """The provider's row is locked first, and the model read after: what is decided on it holds until commit."""
    # PostgreSQL refuses some characters (U+0000) in any text; no id has them.
    model = await repository.find_model(connection, id, workspace_id) if id.isprintable() else None
    if model is None:
        raise NotFound("LlmModel", id, path=(field,))
    provider = await _locked_provider(connection, model.provider_id, workspace_id)
    model = await repository.find_model(connection, id, workspace_id)
    if model is None:
        raise NotFound("LlmModel", id, path=(field,))
    return provider, model


def _unfinished(what: str, number: int) -> str:
    requests = "1 unfinished request" if number == 1 else f"{number} unfinished requests"
    return f"{what} has {requests}: cancel them or let them finish, or deprecate or disable it instead"
