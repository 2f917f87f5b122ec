"""Every statement in the code is one that the migrated database accepts: tables, columns, types and functions exist."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from app.db.pool import Connection, Database
from app.db.rows import TABLES

REPOSITORY = Path(__file__).parents[2]
METHODS = ("execute", "executemany", "fetch", "fetchrow", "fetchval", "cursor", "prepare")


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL that the code hands to a connection: `sql` is None where it is put together at run time."""

    place: str
    sql: str | None
    literal: str


def statements() -> Iterator[Statement]:
    for package in ("app", "workers", "seed"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            yield from statements_of(path)


def statements_of(path: Path) -> Iterator[Statement]:
    source = path.read_text(encoding="utf-8")
    if "app.db.pool" not in source and "asyncpg" not in source:
        return
    relative = path.relative_to(REPOSITORY)
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
            continue
        text = node.args[0]
        if node.func.attr in METHODS and isinstance(text, ast.Constant | ast.JoinedStr | ast.Name | ast.BinOp):
            yield Statement(f"{relative}:{node.lineno}", evaluate(text, relative), literal_parts(text))


def evaluate(text: ast.expr, path: Path) -> str | None:
    """The statement, where it is made of constants of its module alone."""
    module = importlib.import_module(".".join(path.with_suffix("").parts))
    try:
        value = eval(compile(ast.Expression(text), str(path), "eval"), vars(module))
    except (NameError, TypeError, AttributeError):
        return None
    return value if isinstance(value, str) else None


def literal_parts(text: ast.expr) -> str:
    return " ".join(
        part.value for part in ast.walk(text) if isinstance(part, ast.Constant) and isinstance(part.value, str)
    )


async def test_every_statement_in_the_code_is_one_that_the_database_accepts(database: Database) -> None:
    refused = []
    checked = 0
    async with database.connection() as connection:
        for statement in statements():
            if statement.sql is not None and not is_script(statement.sql):
                checked += 1
                if (error := await refusal(connection, statement.sql)) is not None:
                    refused.append(f"{statement.place}: {error}")
    assert refused == []
    assert checked > 10


def is_script(sql: str) -> bool:
    return ";" in sql.strip().rstrip(";")


async def refusal(connection: Connection, sql: str) -> str | None:
    try:
        await connection.prepare(sql)
    except asyncpg.PostgresError as error:
        return str(error)
    return None


def test_columns_that_statements_write_exist_even_where_they_are_put_together_at_run_time() -> None:
    unknown = [
        f"{statement.place}: {table}.{column}"
        for statement in statements()
        for table, column in written_columns(statement.sql or statement.literal)
        if table in TABLES and column not in {known.name for known in TABLES[table].columns}
    ]
    assert unknown == []


def written_columns(sql: str) -> Iterator[tuple[str, str]]:
    for table, columns in re.findall(r'INSERT INTO "?(\w+)"?\s*(?:AS \w+\s*)?\(([\w\s,"]+)\)', sql):
        yield from ((table, column.strip(' \n\t"')) for column in columns.split(","))
    for table, assignments in re.findall(
        r'UPDATE "?(\w+)"?(?:\s+(?:AS\s+)?\w+)?\s+SET\s+(.*?)(?:\bWHERE\b|\bFROM\b|\bRETURNING\b|$)', sql, re.DOTALL
    ):
        yield from ((table, column) for column in re.findall(r'(?:^|,)\s*"?(\w+)"?\s*=', assignments))


def test_written_columns_are_found_in_inserts_and_updates() -> None:
    sql = 'INSERT INTO t (a, "b") VALUES ($1, $2) RETURNING z; UPDATE u AS x SET c = 1, d = x.e + 2 WHERE f = 3'
    assert list(written_columns(sql)) == [("t", "a"), ("t", "b"), ("u", "c"), ("u", "d")]
