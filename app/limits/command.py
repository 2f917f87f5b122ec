"""The commands of the start log: `tollgate limits export` and `tollgate limits check`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from app.durations import parse_duration, parse_instant
from app.limits.log import Format

if TYPE_CHECKING:
    from app.config import Config
    from app.limits.audit import Audit, AuditedProvider
    from app.limits.replay import Peak

commands = typer.Typer(
    help="Export the log of every start that the limits admitted, and check it.\n\nAdherence to the limits is proven "
    "by it, not claimed: docs/limits.md.",
    no_args_is_help=True,
)
_EXCEEDED = 1
_SINCE = "An ISO 8601 time (UTC unless it says otherwise), or how long ago: 12h, 7d."
_Since = Annotated[str | None, typer.Option("--since", help=f"From then on. {_SINCE}")]
_Providers = Annotated[list[str] | None, typer.Argument(help="Names of providers; by default all.")]


@commands.command()
def export(
    provider: Annotated[str | None, typer.Argument(help="The name of a provider; by default all.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            help=f"From a minute before then on, with what ran then: what a check from then on needs. {_SINCE}",
        ),
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help=f"Starts before then. {_SINCE}")] = None,
    format: Annotated[Format, typer.Option("--format", help="One JSON object per line, or one table.")] = Format.NDJSON,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="By default it is printed.")] = None,
) -> None:
    """Write the start log: of each provider first its limits with the times they were set, then its starts in order.

    Each start has the tokens that it reserved and, when its call has ended,
    those that it was settled to. A log of any length takes the same memory.

    For a check elsewhere:  tollgate limits export -o log.ndjson
    """
    bounds = _instant(since, "--since"), _instant(until, "--until")
    config = _configured()
    with _open_output(output) as file:
        asyncio.run(_export(config, [provider] if provider else [], bounds, format, file))
    if output is not None:
        typer.echo(f"wrote {output}", err=True)


@commands.command()
def check(
    providers: _Providers = None,
    since: _Since = None,
    window: Annotated[str, typer.Option("--window", help="Length of the sliding window.")] = "60s",
    file: Annotated[
        Path | None, typer.Option("--file", help="A log from `tollgate limits export`; no database is needed then.")
    ] = None,
) -> None:
    """Replay every sliding window over the start log, and say which, if any, exceeded a limit. Exit code 1: some did.

    Each start is judged by the limits in force at its instant, however they
    were edited. Tokens are those that calls settled, else what they reserved;
    a window that was within its limit when its calls started can so be seen
    above it afterwards, where a provider counts more than was reserved.

    A part of a log, pruned or exported between two times, shows what it holds.
    """
    from app.limits.audit import Audit

    audit = Audit(
        window=parse_duration(window, "--window"),
        judged_from=_instant(since, "--since"),
        names=providers or (),
    )
    if file is not None:
        _check_file(file, audit, providers or [])
    else:
        asyncio.run(_check(_configured(), audit, providers or []))
    for name, audited in audit.providers.items():
        typer.echo("\n".join(_report(name, audited)))
    raise typer.Exit(_EXCEEDED if audit.violation_count else 0)


def _configured() -> Config:
    from app.config import Config
    from app.logs import configure_logs

    config = Config.load()
    configure_logs(config)
    return config


def _instant(text: str | None, field: str) -> datetime | None:
    return None if text is None else parse_instant(text, field, now=datetime.now(UTC))


async def _export(
    config: Config, names: list[str], bounds: tuple[datetime | None, datetime | None], format: Format, file: TextIO
) -> None:
    from app.bootstrap import open_database
    from app.limits.log import line_writer
    from app.limits.service import LimitService

    write = line_writer(file, format)
    async with open_database(config, size=2) as database:
        since, until = bounds
        log = LimitService(database).read_log(names, since=since, until=until, window=timedelta(minutes=1))
        async with aclosing(log) as lines:
            async for line in lines:
                write(line)


async def _check(config: Config, audit: Audit, names: list[str]) -> None:
    from app.bootstrap import open_database
    from app.limits.service import LimitService

    async with (
        open_database(config, size=2) as database,
        aclosing(LimitService(database).read_log(names, since=audit.judged_from, window=audit.window)) as lines,
    ):
        async for line in lines:
            audit.take(line)


def _check_file(path: Path, audit: Audit, names: list[str]) -> None:
    from app.errors import ConfigurationError, NotFound
    from app.limits.log import read_lines

    try:
        with path.open(encoding="utf-8", newline="") as source:
            for line in read_lines(source, str(path)):
                audit.take(line)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    for name in names:
        if name not in audit.providers:
            raise NotFound("LlmProvider", name)
    if not audit.providers:
        raise ConfigurationError(f"{path} holds no start log")


@contextmanager
def _open_output(path: Path | None) -> Iterator[TextIO]:
    """A file is replaced whole, or not at all."""
    from app.errors import ConfigurationError

    if path is None:
        yield sys.stdout
        return
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            yield file
        unfinished.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _report(name: str, audited: AuditedProvider) -> Iterator[str]:
    replay = audited.replay
    if replay is None or replay.first_at is None or replay.last_at is None:
        yield f"{name}: no starts"
        return
    yield f"{name}: {replay.starts:,} starts from {_time(replay.first_at)} to {_time(replay.last_at)}"
    for kind, peak in replay.peaks.items():
        yield f"  {kind:<9} {_most(peak)}, at {_time(peak.at)}"
    if not audited.violation_count:
        yield "  no window exceeded a limit"
        return
    yield f"  {audited.violation_count:,} times a limit was exceeded:"
    for found in audited.violations:
        yield f"    {_time(found.at)}  start {found.sequence}: {found.kind} {found.observed:,} of {found.limit:,}"
    if (unlisted := audited.violation_count - len(audited.violations)) > 0:
        yield f"    and {unlisted:,} more"


def _most(peak: Peak) -> str:
    return f"{peak.observed:,}, not limited" if peak.limit is None else f"{peak.observed:,} of {peak.limit:,}"


def _time(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
