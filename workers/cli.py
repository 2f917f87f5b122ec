"""`tollgate work`."""

from __future__ import annotations

from typing import Annotated

import typer


def work(
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Calls at once in this process. [TOLLGATE_WORKER_CONCURRENCY]")
    ] = None,
    emulator_url: Annotated[
        str | None, typer.Option(help="Send every provider's calls to this emulator, which needs no key.")
    ] = None,
    until_stdin_closes: Annotated[
        bool, typer.Option("--until-stdin-closes", help="Stop when the process that started this one is gone.")
    ] = False,
) -> None:
    """Run LLM calls from the queue, under each provider's limits.

    Start as many as you like, on as many machines as you like, against one DATABASE_URL: together they never exceed a
    limit. Provider keys come from the environment: OPENAI_API_KEY for the provider named "openai", and so on. SIGTERM
    lets running calls end (TOLLGATE_DRAIN_SECONDS) and gives the others back to the queue.
    """
    import uvloop

    from app.config import Config
    from app.logs import configure_logs
    from workers.process import work as work_until_stopped

    changes = {"worker_concurrency": concurrency, "emulator_url": emulator_url}
    config = Config.load().model_copy(update={name: value for name, value in changes.items() if value is not None})
    configure_logs(config)
    uvloop.run(work_until_stopped(config, until_stdin_closes=until_stdin_closes))
