"""Access tokens in GraphQL, for admins."""

# mypy: disallow-untyped-decorators=False
# strawberry.field answers Any, so that mypy takes it for an untyped decorator.

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import strawberry
from graphql import GraphQLResolveInfo

from app.access import records
from app.access.records import Permission
from app.api.context import Info
from app.api.errors import Forbidden, NotFound, ValidationError
from app.api.mutations import change, or_none

strawberry.enum(
    records.AccessRole,
    description="ADMIN may do all, OPERATOR submits requests and reads, READER reads.",
)


@strawberry.type(description="A bearer token; the token itself is shown once, when it is made.")
class AccessToken:
    id: strawberry.ID
    name: str
    role: records.AccessRole
    token_prefix: str = strawberry.field(description="The first characters of the token, to recognise it by.")
    expires_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime

    @classmethod
    def is_type_of(cls, value: object, _info: GraphQLResolveInfo[Any]) -> bool:
        return isinstance(value, (records.AccessToken, cls))


@strawberry.type(description="A new token: keep `token`, it is never shown again.")
class CreatedAccessToken:
    token: str
    access_token: AccessToken


@strawberry.input
class CreateAccessTokenInput:
    name: str
    role: records.AccessRole
    expires_at: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="Left out: it is valid until it is revoked."
    )


CreateAccessTokenResult = Annotated[
    CreatedAccessToken | ValidationError | Forbidden, strawberry.union("CreateAccessTokenResult")
]
RevokeAccessTokenResult = Annotated[AccessToken | NotFound | Forbidden, strawberry.union("RevokeAccessTokenResult")]


@strawberry.type
class AccessQuery:
    @strawberry.field(graphql_type=list[AccessToken], description="Oldest first, with the expired and the revoked.")
    async def access_tokens(self, info: Info) -> tuple[records.AccessToken, ...]:
        info.context.require(Permission.MANAGE_ACCESS)
        return await info.context.services.access.list(workspace_id=info.context.identity.workspace_id)


@strawberry.type
class AccessMutation:
    @strawberry.mutation(graphql_type=CreateAccessTokenResult)
    async def create_access_token(self, info: Info, input: CreateAccessTokenInput) -> object:
        async def create() -> CreatedAccessToken:
            context = info.context
            created = await context.services.access.create(
                input.name,
                input.role,
                expires_at=or_none(input.expires_at),
                workspace_id=context.identity.workspace_id,
            )
            row: Any = created.row
            return CreatedAccessToken(token=created.token, access_token=row)

        return await change(info, Permission.MANAGE_ACCESS, create)

    @strawberry.mutation(graphql_type=RevokeAccessTokenResult, description="From now on it is accepted nowhere.")
    async def revoke_access_token(self, info: Info, id: strawberry.ID) -> object:
        access, workspace = info.context.services.access, info.context.identity.workspace_id
        return await change(info, Permission.MANAGE_ACCESS, lambda: access.revoke(id, workspace_id=workspace))
