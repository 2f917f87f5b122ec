"""The data model as the Prisma CLI sends it to a generator, with what the toolkit's own classes leave out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prisma.generator.models import DefaultData
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class SchemaEnumValue(_Part):
    name: str
    db_name: str | None = None


class SchemaEnum(_Part):
    name: str
    db_name: str | None = None
    values: list[SchemaEnumValue]


class SchemaField(_Part):
    name: str
    db_name: str | None = None
    kind: str
    type: str
    is_list: bool
    is_required: bool
    default: Any = None
    documentation: str | None = None
    relation_from_fields: list[str] | None = None
    relation_to_fields: list[str] | None = None
    relation_on_delete: str | None = None

    @property
    def column(self) -> str:
        return self.db_name or self.name


class SchemaModel(_Part):
    name: str
    db_name: str | None = None
    documentation: str | None = None
    fields: list[SchemaField]

    @property
    def table(self) -> str:
        return self.db_name or self.name

    @property
    def scalars(self) -> list[SchemaField]:
        return [field for field in self.fields if field.kind in ("scalar", "enum")]

    def columns_of(self, names: Sequence[str]) -> tuple[str, ...]:
        by_name = {field.name: field.column for field in self.fields}
        return tuple(by_name[name] for name in names)


class SchemaIndexField(_Part):
    name: str


class SchemaIndex(_Part):
    model: str
    type: str
    db_name: str | None = None
    fields: list[SchemaIndexField]


class SchemaDatamodel(_Part):
    enums: list[SchemaEnum]
    models: list[SchemaModel]
    indexes: list[SchemaIndex]


class SchemaDocument(_Part):
    datamodel: SchemaDatamodel


class SchemaData(DefaultData):
    """Prisma's own check of the data, and the same document once more with columns' names and indexes."""

    document: SchemaDocument = Field(validation_alias=AliasChoices("dmmf"))
