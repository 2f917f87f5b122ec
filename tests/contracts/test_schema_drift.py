"""The migrated database is what schema.prisma says; what Prisma cannot express is listed here by name."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.db import rows
from app.db.pool import Database
from app.db.rows import ENUMS, TABLES
from app.db.tables import Column, ForeignKey, Index

INDEXES_BEYOND_PRISMA = {
    "llm_models_one_default_per_provider",
    "model_requests_one_per_idempotency_key",
    "model_requests_queue",
    "model_requests_owned_queue",
    "model_requests_leases",
    "model_requests_retries",
    "model_requests_deadlines",
    "model_requests_failed",
    "model_requests_fallbacks",
    "model_requests_videos",
}
CHECKS = {
    "llm_models_default_not_deprecated",
    "llm_models_cost_input_not_negative",
    "llm_models_cost_output_not_negative",
    "model_prices_price_not_negative",
    "llm_providers_max_parallel_requests_at_least_one",
    "llm_providers_requests_per_minute_at_least_one",
    "llm_providers_tokens_per_minute_at_least_one",
    "llm_models_context_window_at_least_one",
    "llm_models_max_output_tokens_at_least_one",
    "llm_models_timeouts_positive",
    "model_requests_reserved_tokens_not_negative",
    "model_requests_max_attempts_at_least_one",
    "model_requests_cost_not_negative",
    "model_requests_lease_while_processing",
    "ledger_entries_quantity_not_negative",
    "ledger_entries_amount_not_negative",
    "limit_states_window_at_least_one",
    "steady_clock_is_one_row",
}
TRIGGERS = {
    "llm_models_identity_immutable",
    "llm_models_append_list_price",
    "model_prices_append_only",
    "llm_providers_raise_revision",
    "llm_models_raise_revision",
    "model_prices_raise_revision",
    "system_settings_raise_revision",
    "access_tokens_raise_revision",
    "ledger_entries_append_only",
    "provider_starts_append_only",
    "llm_providers_create_limit_state",
    "llm_providers_append_limit_change",
    "limit_changes_append_only",
}
FUNCTIONS = {
    "refuse_model_identity_change",
    "append_list_price",
    "refuse_change_of_history",
    "raise_revision",
    "create_limit_state",
    "append_limit_change",
    "announce_requests",
    "rescue_requests",
    "record_outcomes",
    "submit_and_claim",
    "divert_requests",
    "next_fallback",
    "claim_requests",
    "renew_leases",
    "finish_requests",
    "cancel_request",
    "within_expectation",
    "steady_now",
    "server_time",
    "witness_clock",
}

_ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


async def fetch(database: Database, statement: str) -> list[tuple[Any, ...]]:
    async with database.connection() as connection:
        return [tuple(record) for record in await connection.fetch(statement)]


async def names(database: Database, statement: str) -> set[str]:
    return {name for (name,) in await fetch(database, statement)}


async def test_tables_are_those_of_the_schema(database: Database) -> None:
    found = await names(
        database,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')",
    )
    assert found == {*TABLES, "_prisma_migrations"}


async def test_columns_are_those_of_the_schema(database: Database) -> None:
    found = await fetch(
        database,
        """SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), NOT attnotnull,
                  pg_get_expr(adbin, adrelid)
             FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
                  LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped""",
    )
    for table in TABLES.values():
        attributes = {column.name: column.attribute for column in table.columns}
        columns = {Column(name, attributes.get(name, "?"), *rest) for of, name, *rest in found if of == table.name}
        assert columns == set(table.columns), table.name


async def test_keys_and_indexes_are_those_of_the_schema(database: Database) -> None:
    found = await fetch(
        database,
        """SELECT indrelid::regclass::text, relname, indisprimary, indisunique,
                  ARRAY(SELECT pg_get_indexdef(indexrelid, place, false) FROM generate_series(1, indnkeyatts) AS place
                        ORDER BY place)
             FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
            WHERE relnamespace = 'public'::regnamespace AND indpred IS NULL AND indexprs IS NULL""",
    )
    plain = [row for row in found if row[1] not in INDEXES_BEYOND_PRISMA]
    for table in TABLES.values():
        for expected, kind in (
            ((table.primary_key,), (True, True)),
            (table.uniques, (False, True)),
            (table.indexes, (False, False)),
        ):
            indexes = {
                Index(name, tuple(keys)) for of, name, *is_, keys in plain if (of, tuple(is_)) == (table.name, kind)
            }
            assert indexes == set(expected), table.name


async def test_foreign_keys_and_their_actions_are_those_of_the_schema(database: Database) -> None:
    columns = "ARRAY(SELECT attname::text FROM unnest({1}) WITH ORDINALITY AS keys (number, place)"
    columns += " JOIN pg_attribute ON attrelid = {0} AND attnum = number ORDER BY place)"
    found = await fetch(
        database,
        f"""SELECT conrelid::regclass::text, conname, {columns.format("conrelid", "conkey")}, confrelid::regclass::text,
                   {columns.format("confrelid", "confkey")}, confdeltype::text, confupdtype::text
              FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace""",
    )
    for table in TABLES.values():
        keys = {
            ForeignKey(name, tuple(own), target, tuple(theirs), _ACTIONS[on_delete], _ACTIONS[on_update])
            for of, name, own, target, theirs, on_delete, on_update in found
            if of == table.name
        }
        assert keys == set(table.foreign_keys), table.name


async def test_enums_and_their_values_are_those_of_the_schema(database: Database) -> None:
    found = await fetch(
        database,
        """SELECT typname, ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = pg_type.oid
                                 ORDER BY enumsortorder)
             FROM pg_type WHERE typtype = 'e' AND typnamespace = 'public'::regnamespace""",
    )
    assert {name: list(values) for name, values in found} == {
        name: [value.value for value in enum] for name, enum in ENUMS.items()
    }


async def test_indexes_that_prisma_cannot_express_are_the_listed_ones(database: Database) -> None:
    found = await names(
        database,
        "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' AND tablename <> '_prisma_migrations'",
    )
    known = {index.name for table in TABLES.values() for index in (table.primary_key, *table.uniques, *table.indexes)}
    assert found - known == INDEXES_BEYOND_PRISMA


async def test_checks_are_the_listed_ones(database: Database) -> None:
    found = await names(
        database,
        "SELECT conname FROM pg_constraint"
        " WHERE contype NOT IN ('p', 'f', 'n') AND connamespace = 'public'::regnamespace",
    )
    assert found == CHECKS


async def test_triggers_are_the_listed_ones(database: Database) -> None:
    assert await names(database, "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal") == TRIGGERS


async def test_functions_are_the_listed_ones(database: Database) -> None:
    found = await names(database, "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
    assert found == FUNCTIONS


async def test_row_classes_read_what_their_column_lists_select(database: Database) -> None:
    for table in TABLES.values():
        constant = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", table.model).upper() + "_COLUMNS"
        async with database.connection() as connection:
            statement = await connection.prepare(f"SELECT {getattr(rows, constant)} FROM {table.name}")
            selected = [attribute.name for attribute in statement.get_attributes()]
        assert selected == [column.name for column in table.columns]
        row_class = getattr(rows, table.model)
        assert list(row_class.__dataclass_fields__) == [column.attribute for column in table.columns]


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("CREATE TABLE extra (id int)", test_tables_are_those_of_the_schema),
        ("ALTER TABLE llm_models ADD extra int", test_columns_are_those_of_the_schema),
        ("ALTER TABLE llm_models ALTER description SET NOT NULL", test_columns_are_those_of_the_schema),
        ("ALTER TABLE llm_models ALTER status DROP DEFAULT", test_columns_are_those_of_the_schema),
        ("ALTER TABLE model_prices ALTER created_at TYPE timestamptz(3)", test_columns_are_those_of_the_schema),
        ("DROP INDEX llm_models_status_idx", test_keys_and_indexes_are_those_of_the_schema),
        ("CREATE INDEX extra ON llm_models (status)", test_keys_and_indexes_are_those_of_the_schema),
        (
            "CREATE INDEX extra ON llm_models (lower(display_name))",
            test_indexes_that_prisma_cannot_express_are_the_listed_ones,
        ),
        (
            "ALTER TABLE llm_models DROP CONSTRAINT llm_models_provider_id_fkey,"
            " ADD CONSTRAINT llm_models_provider_id_fkey"
            " FOREIGN KEY (provider_id) REFERENCES llm_providers (id) ON UPDATE CASCADE",
            test_foreign_keys_and_their_actions_are_those_of_the_schema,
        ),
        ("ALTER TYPE \"AccessRole\" ADD VALUE 'GUEST'", test_enums_and_their_values_are_those_of_the_schema),
        ("ALTER TABLE llm_models ADD CONSTRAINT extra CHECK (id <> '')", test_checks_are_the_listed_ones),
        ("DROP TRIGGER llm_models_append_list_price ON llm_models", test_triggers_are_the_listed_ones),
        ("CREATE FUNCTION extra() RETURNS int RETURN 1", test_functions_are_the_listed_ones),
    ],
)
async def test_drift_is_noticed(database: Database, change: str, check: Callable[[Database], Awaitable[None]]) -> None:
    async with database.connection() as connection:
        await connection.execute(change)
    with pytest.raises(AssertionError):
        await check(database)
