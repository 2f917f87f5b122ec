"""What is exported is what is there: to read it, to apply it, and in an empty database."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import jsonschema_rs
import yaml
from hypothesis import HealthCheck, given, settings

from app.catalog.snapshot import Snapshot
from app.configuration.export import write_document
from app.configuration.files import load
from app.configuration.plan import decide
from app.configuration.records import Document
from app.configuration.schema import build_schema
from app.configuration.service import ConfigurationService
from app.db.pool import Database
from seed.service import seed_reference
from tests.app.configuration.catalogs import NOW, catalogs
from tests.app.configuration.conftest import Yaml12

SCHEMA = jsonschema_rs.validator_for(build_schema())


def document_of(text: str) -> Document:
    with TemporaryDirectory() as directory:
        file = Path(directory, "tollgate.yaml")
        file.write_text(text, newline="")
        return load(file, {})


@given(catalogs())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_plan_of_an_export_finds_no_difference(snapshot: Snapshot) -> None:
    text = write_document(snapshot, at=NOW, workspace_id="default")
    for at in (NOW, NOW + timedelta(milliseconds=1)):
        if any(NOW < price.effective_at <= at for price in snapshot.prices):
            continue
        assert decide(document_of(text), snapshot, at=at, workspace_id="default", prune=True).changes == ()


@given(catalogs())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_export_is_valid_by_the_published_schema(snapshot: Snapshot) -> None:
    text = write_document(snapshot, at=NOW, workspace_id="default")
    errors = [str(error) for error in SCHEMA.iter_errors(yaml.load(text, Yaml12))]
    assert errors == []


@given(snapshot=catalogs())
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_an_export_applied_makes_the_same_catalog(snapshot: Snapshot, database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("DELETE FROM llm_providers")
        await connection.execute("DELETE FROM system_settings")
    service = ConfigurationService(database)
    text = write_document(snapshot, at=NOW, workspace_id="default")
    await service.apply(document_of(_usable(text)))
    assert (await service.plan(document_of(_usable(text)), prune=True)).changes == ()
    exported = await service.export()
    assert (await service.plan(document_of(exported), prune=True)).changes == ()


async def test_the_seeded_catalog_comes_back_whole(database: Database) -> None:
    await seed_reference(database)
    service = ConfigurationService(database)
    exported = await service.export()
    assert exported.count("modelId: ") == 18
    document = document_of(exported)
    assert (await service.plan(document, prune=True)).changes == ()
    async with database.connection() as connection:
        await connection.execute("DELETE FROM llm_providers")
        await connection.execute("DELETE FROM system_settings")
    await service.apply(document)
    assert await service.export() == exported


def _usable(text: str) -> str:
    """A setting's name may be that of an infra model by chance, and its value no model."""
    return text.replace("\n  infra_model_", "\n  infra_modelx_")
