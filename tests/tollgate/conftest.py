"""A server process with a worker, and services of its admin and of an operator, for all tests of the package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_server import MODELS, GatewayServer, gateway_server
from tests.worker_process import WorkerProcess
from tollgate import Service


@pytest.fixture(scope="session")
def server_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("package") / "data"


@pytest.fixture(scope="session")
def server(
    server_dsn: str, template_database: str, emulator_url: str, server_data_dir: Path
) -> Iterator[GatewayServer]:
    keys = {f"{provider.upper()}_API_KEY": f"secret-key-of-{provider}" for provider in MODELS}
    with (
        gateway_server(server_dsn, template_database, emulator_url, server_data_dir) as server,
        WorkerProcess(server.dsn, **keys),
    ):
        yield server


@pytest.fixture
def service(server: GatewayServer) -> Iterator[Service]:
    """With an operator's token, as programs have."""
    with Service(server.url, server.token, timeout_seconds=60) as service:
        yield service


@pytest.fixture
def admin(server: GatewayServer, server_data_dir: Path) -> Iterator[Service]:
    token = (server_data_dir / "admin-token").read_text().strip()
    with Service(server.url, token, timeout_seconds=60) as service:
        yield service
