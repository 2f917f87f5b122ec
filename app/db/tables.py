"""The shape of a table as schema.prisma declares it; app/db/rows.py describes each table in these terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


class Record(Protocol):
    """What a row is read from: an asyncpg Record, or any mapping by column name."""

    def __getitem__(self, key: str, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Column:
    """`sql_type` and `default` as PostgreSQL prints them (format_type, pg_get_expr); `attribute` is the row's field."""

    name: str
    attribute: str
    sql_type: str
    is_nullable: bool
    default: str | None


@dataclass(frozen=True, slots=True)
class Index:
    """A primary key, a unique index or a plain one."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """The actions are written as in SQL: "CASCADE", "RESTRICT", "SET NULL"."""

    name: str
    columns: tuple[str, ...]
    target: str
    target_columns: tuple[str, ...]
    on_delete: str
    on_update: str


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    model: str
    columns: tuple[Column, ...]
    primary_key: Index
    uniques: tuple[Index, ...]
    indexes: tuple[Index, ...]
    foreign_keys: tuple[ForeignKey, ...]
