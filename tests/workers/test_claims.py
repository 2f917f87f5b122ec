"""When workers claim: at once when there is something to claim, and not otherwise."""

from __future__ import annotations

from app.db.pool import Database
from tests.emulator import Emulator
from tests.worker_process import WorkerProcess
from tests.workers.work import Work, work_for

LAST_CLAIM = (
    "SELECT s.xmin::text FROM limit_states s JOIN llm_providers p ON p.id = s.provider_id WHERE p.name = 'acme'"
)


async def test_a_provider_without_work_is_not_polled(
    work: Work, database: Database, database_dsn: str, emulator: Emulator
) -> None:
    emulator.configure("other", latency_ms=200)
    async with work_for(database, database_dsn, emulator, provider="other") as other:
        with WorkerProcess(work.dsn, OTHER_API_KEY="secret-key-of-other"):
            await work.run()
            await other.run()
            before = await work.value(LAST_CLAIM)
            await other.run()
            assert await work.value(LAST_CLAIM) == before


async def test_edits_of_an_operator_take_effect_without_a_restart(
    database: Database, database_dsn: str, emulator: Emulator
) -> None:
    emulator.configure("acme", fault="hang")
    async with work_for(database, database_dsn, emulator, max_parallel=1) as work:
        ids = [await work.submit() for _ in range(3)]
        await work.execute("UPDATE llm_providers SET is_enabled = false")
        with WorkerProcess(work.dsn):
            await work.execute("UPDATE llm_providers SET is_enabled = true")
            await work.seen(running=1)
            await work.execute("UPDATE llm_providers SET max_parallel_requests = 2")
            await work.seen(running=2)
            assert work.record()["peak_parallel"] == 2
            # A place that comes free is taken at once.
            running = await work.value("SELECT id FROM model_requests WHERE status = 'PROCESSING' LIMIT 1")
            await work.service.cancel(running, workspace_id="default")
            await work.seen(arrivals=3)
        assert len(ids) == 3
