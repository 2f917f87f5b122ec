"""The generator, spoken to as the Prisma CLI does; and rows.py as it is checked in."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from app.db import rows
from app.db.codegen import ROWS, fingerprint
from app.db.tables import Column, ForeignKey, Index

DATA = Path(__file__).with_name("data")
REPOSITORY = Path(__file__).parents[3]


def call_generator(*requests: dict[str, Any]) -> list[dict[str, Any]]:
    lines = "".join(json.dumps({"jsonrpc": "2.0", "id": number, **r}) + "\n" for number, r in enumerate(requests))
    result = subprocess.run(
        [sys.executable, "-m", "app.db.codegen"],
        input=lines,
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
        env={**os.environ, "PRISMA_GENERATOR_INVOCATION": "true"},
    )
    return [json.loads(line) for line in result.stderr.splitlines() if line]


def library_document(output: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DATA / "library.json").read_text())
    document["datamodel"] = (DATA / "library.prisma").read_text()
    document["generator"]["output"]["value"] = str(output)
    return document


@pytest.fixture(scope="module")
def library_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("library") / "rows.py"
    (answer,) = call_generator({"method": "generate", "params": library_document(output)})
    assert answer["result"] is None
    return output.read_text()


@pytest.fixture(scope="module")
def library(library_text: str, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    path = tmp_path_factory.mktemp("module") / "library_rows.py"
    path.write_text(library_text)
    spec = importlib.util.spec_from_file_location("library_rows", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["library_rows"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def test_rows_are_generated_from_schema_and_generator_as_they_are_now() -> None:
    notice, stated, body = ROWS.read_text().split("\n", 2)
    assert "do not edit" in notice
    assert stated == "# " + fingerprint((REPOSITORY / "schema.prisma").read_text(), body), "run `make generate`"


def test_fingerprint_notices_an_edit_of_the_schema_or_of_the_rows() -> None:
    assert len({fingerprint("schema", "rows"), fingerprint("schema ", "rows"), fingerprint("schema", "rows ")}) == 3


def test_default_output_is_the_checked_in_file() -> None:
    (answer,) = call_generator({"method": "getManifest", "params": {}})
    assert answer["result"]["manifest"]["defaultOutput"] == str(ROWS)


def test_generating_twice_gives_the_same_text(library_text: str, tmp_path: Path) -> None:
    call_generator({"method": "generate", "params": library_document(tmp_path / "again.py")})
    assert (tmp_path / "again.py").read_text() == library_text


def test_document_of_another_prisma_version_is_refused(tmp_path: Path) -> None:
    document = {**library_document(tmp_path / "rows.py"), "version": "another"}
    (answer,) = call_generator({"method": "generate", "params": document})
    assert "expected Prisma version" in answer["error"]["message"]
    assert not (tmp_path / "rows.py").exists()


def test_generated_module_passes_strict_type_checks(library: ModuleType) -> None:
    assert library.__file__ is not None
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", library.__file__], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert checked.returncode == 0, checked.stdout


def test_enum_members_are_strings_as_the_database_has_them(library: ModuleType) -> None:
    assert library.Shelf.OPEN == "OPEN"
    assert library.Shelf.CLOSED == "closed stacks"
    assert library.ENUMS["shelf"] is library.Shelf
    assert rows.LlmModelStatus.ACTIVE == "ACTIVE"


def test_row_is_read_from_a_record_by_its_columns_names(library: ModuleType) -> None:
    now = datetime.now(UTC)
    record = {
        "id": "b1", "shelf": "closed stacks", "shelves": ["OPEN"], "order": 7, "weight": Decimal("1.250"),
        "title": "T", "tags": None, "is_lent": True, "lent_at": now, "returned": None, "remarks": {"a": [1]},
        "author_id": None, "editor_id": "p1",
    }  # fmt: skip
    book = library.Book.from_record(record)
    assert book == library.Book(
        "b1", library.Shelf.CLOSED, (library.Shelf.OPEN,), 7, Decimal("1.250"), "T", (), True, now, None, {"a": [1]},
        None, "p1",
    )  # fmt: skip
    assert library.Book.from_record({**record, "shelf": None}).shelf is None
    assert library.Book.__doc__ == 'A library\'s "book"'


def test_reserved_words_are_quoted_in_column_lists(library: ModuleType) -> None:
    assert 'shelves, "order", weight' in library.BOOK_COLUMNS
    assert "is_lent, lent_at" in library.BOOK_COLUMNS


def test_columns_have_type_nullability_and_default_as_postgresql_prints_them(library: ModuleType) -> None:
    assert library.TABLES["books"].columns == (
        Column("id", "id", "text", False, None),
        Column("shelf", "shelf", "shelf", True, None),
        Column("shelves", "shelves", "shelf[]", True, "ARRAY['OPEN'::shelf]"),
        Column("order", "order", "integer", False, "nextval('books_order_seq'::regclass)"),
        Column("weight", "weight", "numeric(10,3)", True, None),
        Column("title", "title", "text", False, "'It''s \"new\"'::text"),
        Column("tags", "tags", "text[]", True, None),
        Column("is_lent", "is_lent", "boolean", False, "false"),
        Column("lent_at", "lent_at", "timestamp(3) with time zone", False, "CURRENT_TIMESTAMP"),
        Column("returned", "returned", "timestamp(3) without time zone", True, None),
        Column("remarks", "remarks", "jsonb", True, None),
        Column("author_id", "author_id", "text", True, None),
        Column("editor_id", "editor_id", "text", False, None),
    )


def test_keys_have_prismas_names_and_actions(library: ModuleType) -> None:
    books = library.TABLES["books"]
    assert books.primary_key == Index("books_pkey", ("id",))
    assert books.uniques == (Index("book_title", ("title", "author_id")),)
    assert books.indexes == (Index("books_shelf_order_idx", ("shelf", "order")),)
    assert books.foreign_keys == (
        ForeignKey("books_author_id_fkey", ("author_id",), "Person", ("id",), "SET NULL", "CASCADE"),
        ForeignKey("books_editor_id_fkey", ("editor_id",), "Person", ("id",), "NO ACTION", "RESTRICT"),
    )
