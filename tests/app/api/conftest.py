from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.serving import Api, serve_api


@pytest.fixture
async def api(database_dsn: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with serve_api(database_dsn, tmp_path) as served:
        yield served
