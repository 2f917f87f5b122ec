"""Settings in GraphQL, and the models that infra tasks are to use."""

# mypy: disallow-untyped-decorators=False
# strawberry.field answers Any, so that mypy takes it for an untyped decorator.

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import strawberry
from graphql import GraphQLResolveInfo

from app.access.records import Permission
from app.api.compiled import READS_SNAPSHOT
from app.api.context import Info
from app.api.errors import Forbidden, ModelUnavailable, NotFound, ValidationError
from app.api.mutations import change
from app.api.pagination import Deleted
from app.api.scalars import JSON
from app.catalog.graphql import LlmModel
from app.catalog.records import LlmModel as LlmModelRecord
from app.settings import records
from app.settings.service import infra_model as find_infra_model


@strawberry.type(description="A value for the whole installation.")
class SystemSetting:
    id: strawberry.ID
    key: str
    value: JSON
    updated_at: datetime

    @classmethod
    def is_type_of(cls, value: object, _info: GraphQLResolveInfo[Any]) -> bool:
        return isinstance(value, (records.SystemSetting, cls))


SetSystemSettingResult = Annotated[
    SystemSetting | ValidationError | ModelUnavailable | Forbidden, strawberry.union("SetSystemSettingResult")
]
DeleteSystemSettingResult = Annotated[Deleted | NotFound | Forbidden, strawberry.union("DeleteSystemSettingResult")]


@strawberry.type
class SettingsQuery:
    @strawberry.field(graphql_type=list[SystemSetting], metadata=READS_SNAPSHOT)
    def system_settings(self, info: Info) -> tuple[records.SystemSetting, ...]:
        return info.context.catalog.settings

    @strawberry.field(graphql_type=SystemSetting | None, metadata=READS_SNAPSHOT)
    def system_setting(self, info: Info, key: str) -> records.SystemSetting | None:
        return info.context.catalog.setting(key)

    @strawberry.field(
        graphql_type=LlmModel | None,
        metadata=READS_SNAPSHOT,
        description="The usable model that the setting infra_model_<task> names; an error says why there is none.",
    )
    def infra_model(self, info: Info, task: str) -> LlmModelRecord:
        return find_infra_model(info.context.catalog, task, info.context.identity.workspace_id)


@strawberry.type
class SettingsMutation:
    @strawberry.mutation(
        graphql_type=SetSystemSettingResult,
        description="A setting infra_model_<task> must name a usable model.",
    )
    async def set_system_setting(self, info: Info, key: str, value: JSON) -> object:
        settings, workspace = info.context.services.settings, info.context.identity.workspace_id
        return await change(info, Permission.MANAGE_CATALOG, lambda: settings.set(key, value, workspace_id=workspace))

    @strawberry.mutation(graphql_type=DeleteSystemSettingResult)
    async def delete_system_setting(self, info: Info, key: str) -> object:
        async def delete() -> Deleted:
            setting = await info.context.services.settings.delete(key)
            return Deleted(id=strawberry.ID(setting.id))

        return await change(info, Permission.MANAGE_CATALOG, delete)
