"""System settings and infra models, on a real database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from app.catalog.records import CreateModel, CreateProvider, LlmModel, UpdateModel, UpdateProvider
from app.catalog.service import CatalogService
from app.catalog.snapshots import SnapshotHolder
from app.db.pool import Database
from app.errors import ModelUnavailable, NotFound, ValidationError
from app.settings.service import SettingsService

KEY = "infra_model_scenario_expansion"


@dataclass
class Fixture:
    database: Database
    snapshots: SnapshotHolder
    catalog: CatalogService
    settings: SettingsService
    mini: LlmModel
    large: LlmModel


@pytest.fixture
async def tollgate(database: Database) -> Fixture:
    snapshots = SnapshotHolder(database)
    await snapshots.refresh()
    catalog = CatalogService(database, snapshots)
    provider = await catalog.create_provider(CreateProvider(name="openai", display_name="OpenAI"))
    mini, large = [
        await catalog.create_model(CreateModel(provider_id=provider.id, model_id=name, display_name=name))
        for name in ("gpt-4o-mini", "gpt-4o")
    ]
    return Fixture(database, snapshots, catalog, SettingsService(database, snapshots), mini, large)


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "text", [], {"a": [1, None, "é"]}])
async def test_any_json_is_kept_and_read_at_once(tollgate: Fixture, value: Any) -> None:
    made = await tollgate.settings.set("feature.flags", value)
    assert made.value == value
    assert tollgate.settings.get("feature.flags") == made
    assert tollgate.settings.all() == (made,)


async def test_setting_a_key_again_replaces_its_value(tollgate: Fixture) -> None:
    first = await tollgate.settings.set("a", 1)
    second = await tollgate.settings.set("a", 2)
    assert (second.id, second.value) == (first.id, 2)
    assert await tollgate.settings.delete("a") == second
    assert tollgate.settings.get("a") is None
    with pytest.raises(NotFound):
        await tollgate.settings.delete("a")
    with pytest.raises(NotFound):
        await tollgate.settings.delete("\x00")


@pytest.mark.parametrize("key", ["", "A", "1a", "a b", "a" * 101, "infra_model_"])
async def test_a_key_out_of_pattern_is_refused(tollgate: Fixture, key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        await tollgate.settings.set(key, 1)
    assert caught.value.field == "key"
    assert tollgate.settings.all() == ()


@pytest.mark.parametrize("value", ["x" * 65_535, {"a": 2**64}, {"a": "\ud800"}, {"a": "\x00"}, object(), {1: 2}])
async def test_a_value_that_cannot_be_kept_is_refused(tollgate: Fixture, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        await tollgate.settings.set("a", value)
    assert caught.value.field == "value"
    assert (await tollgate.snapshots.refresh()).settings == ()


async def test_a_value_may_be_64_kib(tollgate: Fixture) -> None:
    await tollgate.settings.set("a", "x" * (64 * 1024 - 2))


async def test_an_infra_model_is_named_by_provider_name_or_id_or_by_reference(tollgate: Fixture) -> None:
    for value in (
        {"modelId": "gpt-4o-mini", "providerId": "openai"},
        {"modelId": "gpt-4o-mini", "providerId": tollgate.mini.provider_id},
        "openai:gpt-4o-mini",
        "#/Model/openai/gpt-4o-mini",
    ):
        await tollgate.settings.set(KEY, value)
        assert tollgate.settings.infra_model("scenario_expansion") == tollgate.mini


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "gpt-4o",
        {"modelId": "gpt-4o"},
        {"modelId": 1, "providerId": "openai"},
        {"modelId": "", "providerId": ""},
    ],
)
async def test_an_infra_model_of_another_shape_is_refused(tollgate: Fixture, value: Any) -> None:
    with pytest.raises(ValidationError):
        await tollgate.settings.set(KEY, value)


@pytest.mark.parametrize("value", ["openai:gpt-5", "nobody:gpt-4o"])
async def test_an_infra_model_must_exist(tollgate: Fixture, value: str) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        await tollgate.settings.set(KEY, value)
    assert caught.value.alternatives == ("openai:gpt-4o", "openai:gpt-4o-mini")
    assert caught.value.path == ("value",)


async def test_an_infra_model_must_be_usable(tollgate: Fixture) -> None:
    await tollgate.catalog.deprecate_model(tollgate.mini.id)
    with pytest.raises(ModelUnavailable, match="deprecated") as caught:
        await tollgate.settings.set(KEY, "openai:gpt-4o-mini")
    assert caught.value.alternatives == ("openai:gpt-4o",)


async def test_the_model_is_checked_as_it_is_now_not_as_memory_has_it(tollgate: Fixture) -> None:
    other_holder = SnapshotHolder(tollgate.database)
    await other_holder.refresh()
    await tollgate.catalog.deprecate_model(tollgate.mini.id)
    with pytest.raises(ModelUnavailable):
        await SettingsService(tollgate.database, other_holder).set(KEY, "openai:gpt-4o-mini")


async def test_an_infra_model_says_why_it_cannot_be_used(tollgate: Fixture) -> None:
    with pytest.raises(NotFound, match=KEY):
        tollgate.settings.infra_model("scenario_expansion")
    await tollgate.settings.set(KEY, "openai:gpt-4o-mini")

    await tollgate.catalog.update_provider(tollgate.mini.provider_id, UpdateProvider(is_enabled=False))
    with pytest.raises(ModelUnavailable, match="provider 'openai' is disabled") as caught:
        tollgate.settings.infra_model("scenario_expansion")
    assert (caught.value.ref, caught.value.alternatives) == ("openai:gpt-4o-mini", ())

    await tollgate.catalog.update_provider(tollgate.mini.provider_id, UpdateProvider(is_enabled=True))
    await tollgate.catalog.deprecate_model(tollgate.mini.id)
    with pytest.raises(ModelUnavailable, match="deprecated") as caught:
        tollgate.settings.infra_model("scenario_expansion")
    assert caught.value.alternatives == ("openai:gpt-4o",)

    await tollgate.catalog.update_model(tollgate.large.id, UpdateModel(display_name="Large"))
    await tollgate.catalog.delete_model(tollgate.mini.id)
    with pytest.raises(ModelUnavailable, match="has no model 'gpt-4o-mini'") as caught:
        tollgate.settings.infra_model("scenario_expansion")
    assert caught.value.alternatives == ("openai:gpt-4o",)


async def test_a_value_written_by_other_means_is_refused_when_read(tollgate: Fixture) -> None:
    async with tollgate.database.transaction() as connection:
        await connection.execute(
            "INSERT INTO system_settings (id, key, value, updated_at) VALUES ('s', $1, '{\"model\": 1}', now())", KEY
        )
    await tollgate.snapshots.refresh()
    with pytest.raises(ValidationError, match=KEY):
        tollgate.settings.infra_model("scenario_expansion")
