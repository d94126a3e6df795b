"""The data folder of the embedded stack in one file, and a new data folder out of it.

All of the folder is taken but what a start makes anew: a part that is added later is in the backup without being named here. The
databases are dumped first and the files read after: what a row refers to (a model's artefact, the readings that were materialised) is then
among the files, and a change that was under way is read back as after a crash.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, Engine, NullPool, create_engine, func, select, text

from mlrunbook.base import db, tokens
from mlrunbook.base.anchors import Anchors
from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.approval import POLICY_RULE
from mlrunbook.domain.chain import Length
from mlrunbook.domain.errors import Invalid, Refused, Transient
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role
from mlrunbook.local.addresses import running_env
from mlrunbook.local.backup_archive import FORMAT, Head, Writer, check, extract, opened
from mlrunbook.local.postgres import SUPERUSER, EmbeddedPostgres, binaries
from mlrunbook.local.stack import RESTORING, lock_home
from mlrunbook.response.communication.notifications import Page, request_action
from mlrunbook.store import chain_heads, incidents, integrity, journal, plans, tables, timeline

STORE, FEATURES = "mlrunbook", "feast"
DUMPS = "databases"
# What a start makes anew: `up` writes env, run and Prefect's files, the databases are dumped, logs are no state.
MADE_ANEW = {"postgres", "env", "run", "logs", "prefect", "snapshot", RESTORING}
MADE_ANEW_TOO = {"secrets/postgres-password", "features/feature_store.yaml"}  # of the server that is initialised anew
UNFINISHED = (".new", ".lock", ".restored")
ACTOR = "mlrunbook restore"


@dataclass(frozen=True)
class Contents:
    """What somebody wants to see: is it whole?"""

    made_at: datetime
    incidents: int
    open: int
    tokens: int
    files: int
    altered: tuple[str, ...] = ()  # incidents that do not verify

    @property
    def words(self) -> str:
        return f"{self.incidents} incidents ({self.open} open), {self.tokens} tokens, {self.files} files"


def back_up(home: Path, out: Path, *, now: datetime) -> Contents:
    """Write the backup of `home` to the new file `out`, read it back, and say what is in it. The stack may run."""
    home, out = home.expanduser().resolve(), out.expanduser().resolve()
    if not (home / "postgres" / "PG_VERSION").exists():
        raise Invalid(f"{home} holds no databases: name the data folder of `mlrunbook up` with --home", field="home")
    if out.exists():
        raise Invalid(f"{out} exists: a backup overwrites nothing; choose another name", field="out")
    if out.is_relative_to(home):
        raise Invalid(f"{out} lies in the data folder, and would be lost with it; choose a place elsewhere", field="out")
    fresh = out.with_name(out.name + ".new")
    try:
        with open(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            contents = _write(home, stream, beside=out.parent, now=now)
            stream.flush()
            os.fsync(stream.fileno())
        check(fresh)
        fresh.rename(out)
    finally:
        fresh.unlink(missing_ok=True)
    return contents


def _write(home: Path, stream: IO[bytes], *, beside: Path, now: datetime) -> Contents:
    with tempfile.TemporaryDirectory(prefix=".mlrunbook-backup-", dir=beside) as scratch:
        with _server_of(home) as server:
            head = Head(FORMAT, version("mlrunbook"), _revision(server), server.major, now)
            dumps = {name: server.dump(name, Path(scratch)) for name in (STORE, FEATURES)}
            with server.engine(STORE).connect() as conn:
                counts = _counts(conn)
        writer = Writer(stream, head)
        for name, dump in dumps.items():
            writer.add(f"{DUMPS}/{name}.dump", dump)
        files = add_files(writer, home)
        writer.close()
    return Contents(now, *counts, files=files)


def _revision(server: _Server) -> str:
    with server.engine(STORE).connect() as conn:
        there = conn.execute(text("SELECT to_regclass('alembic_version') IS NOT NULL")).scalar_one()
        found = conn.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none() if there else None
    if found is None:
        raise Refused(
            "the incident store is not in this data folder: MLRUNBOOK_DATABASE_URL names a PostgreSQL of yours; "
            "back that up with its own pg_dump, and copy the folder"
        )
    return str(found)


def add_files(writer: Writer, home: Path) -> int:
    """Every file, once. What goes while we read (a merged file of readings stands for it) has us look again for what came instead."""
    done: set[str] = set()
    while True:
        gone = False
        for name in _files(home):
            if name in done:
                continue
            try:
                writer.add(name, home / name)
                done.add(name)
            except FileNotFoundError:
                gone = True
        if not gone:
            return len(done)


def _files(home: Path) -> Iterator[str]:
    """Paths below `home` of what is to be kept, links followed: a big folder may live on another disk."""
    seen: set[str] = set()
    for folder, below, names in os.walk(home, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a link that leads back
            below.clear()
            continue
        seen.add(real)
        at = Path(folder).relative_to(home)
        below[:] = sorted(name for name in below if not name.startswith(".") and str(at / name) not in MADE_ANEW)
        for name in sorted(names):
            path = str(at / name)
            hidden = name.startswith(".") or name.endswith(UNFINISHED)
            if not hidden and path not in MADE_ANEW | MADE_ANEW_TOO and (home / path).is_file():
                yield path


def restore(archive: Path, home: Path, policy: Policy, *, now: datetime) -> Contents:
    """Make `home`, new or empty, what the backup is of. It is whole when this returns, and as before when this raises."""
    archive, home = archive.expanduser().resolve(), home.expanduser().resolve()
    _check_before(archive)
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise Invalid(f"{home} is not empty: a restore overwrites nothing; name a new folder with --home, or move it away", field="home")
    was_there = home.exists()
    staging = home / RESTORING
    staging.mkdir(parents=True, mode=0o700)
    try:
        head = extract(archive, staging)
        files = sum(path.is_file() for path in staging.rglob("*")) - len((STORE, FEATURES))
        with _server_of(staging) as server:
            for name in (STORE, FEATURES):
                server.load(name, staging / DUMPS / f"{name}.dump")
            engine = server.engine(STORE)
            db.upgrade(engine)
            _cut_anchors(engine, Anchors(staging / "anchors"))
            contents = _settle(engine, policy, head, files, now=now)
        for leftover in (DUMPS, "run", "logs"):
            shutil.rmtree(staging / leftover, ignore_errors=True)
        for path in sorted(staging.iterdir()):
            path.rename(home / path.name)
        staging.rmdir()
    except BaseException:
        shutil.rmtree(staging if was_there else home, ignore_errors=True)
        raise
    return contents


def _check_before(archive: Path) -> None:
    """Refused when this release cannot use it. Nothing is written yet."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    with opened(archive) as (head, _):
        pass
    config = Config()
    config.set_main_option("script_location", "mlrunbook.store:migrations")
    scripts = ScriptDirectory.from_config(config)
    made_by = f"{archive} was made by mlrunbook {head.release}"
    if head.schema_revision not in {script.revision for script in scripts.walk_revisions()}:
        raise Refused(
            f"{made_by} with the schema {head.schema_revision}, which is newer than ours ({scripts.get_current_head()}): "
            "install that release or a newer one"
        )
    if head.postgresql > (ours := _major()):
        raise Refused(f"{made_by} on PostgreSQL {head.postgresql}, and this installation has {ours}: install that release or a newer one")


def _settle(engine: Engine, policy: Policy, head: Head, files: int, *, now: datetime) -> Contents:
    """See whether all is whole, and let nothing be changed on what was approved before."""
    with db.transaction(engine) as conn:
        ids = conn.execute(select(tables.incidents.c.id).order_by(tables.incidents.c.number)).scalars().all()
        altered = tuple(one for one in ids if integrity.altered(conn, one))
        hold(conn, policy, made_at=head.made_at, now=now)
        return Contents(head.made_at, *_counts(conn), files=files, altered=altered)


def _cut_anchors(engine: Engine, anchors: Anchors) -> None:
    """The files were copied after the databases were dumped: heads of what came between are of no chain that there is."""
    with db.transaction(engine) as conn:
        for incident_id in anchors.incidents():
            head = chain_heads.get(conn, incident_id)
            anchors.cut(incident_id, head.length if head else Length())


def hold(conn: Connection, policy: Policy, *, made_at: datetime, now: datetime) -> None:
    """Nobody here knows what was done after the backup was made: the approved plan may be carried out already. A person looks first.

    Of every open incident on-call is paged; what a person approved and is not carried out needs a new yes.
    """
    for incident in incidents.find(conn, only_open=True, limit=1_000_000):
        said = f"restored from the backup of {made_at:%Y-%m-%d %H:%M} UTC; what was done after that is not recorded here"
        timeline.append(conn, incident.id, "restored", said[:1].upper() + said[1:], actor=ACTOR, at=now)
        settled = {(row.plan_digest, row.ordinal) for row in journal.of_incident(conn, incident.id) if row.settled}
        for plan in plans.standing(conn, incident.id, *PlanKind):
            given = [row for row in plans.approvals_of(conn, incident.id, plan.digest) if row.voided_at is None and row.door != POLICY_RULE]
            if given and any((plan.digest, n) not in settled for n in range(len(plan.actions))):
                plans.void(conn, incident.id, plan.digest, because=f"{said}: look, then approve again", now=now)
        todo = f"Compare with what serves now: mlrunbook incidents show {incident.id}"
        call = Page(Role.ONCALL_ML_ENGINEER, said, f"restored:{made_at:%Y%m%dT%H%M%S}", todo)
        request_action(conn, policy, incident, call, now=now)


def _counts(conn: Connection) -> tuple[int, int, int]:
    """Incidents, those that are open, and tokens that are valid."""

    def count(query: object) -> int:
        return int(conn.execute(query).scalar_one())  # type: ignore[call-overload]

    every = select(func.count()).select_from(tables.incidents)
    valid = select(func.count()).select_from(tokens.tokens).where(tokens.tokens.c.revoked_at.is_(None))
    return count(every), count(every.where(text(tables.ONE_OPEN))), count(valid)


class _Server:
    """A PostgreSQL that runs, and the wheel's own tools for it: a dump is read by no older release than wrote it."""

    def __init__(self, socket: Path, password: str) -> None:
        self._env = {"PGHOST": str(socket), "PGUSER": SUPERUSER, "PGPASSWORD": password, "PATH": os.environ.get("PATH", os.defpath)}
        self._url = f"postgresql+psycopg://{SUPERUSER}:{password}@/{{}}?host={socket}"
        self.major = _major()

    def engine(self, database: str) -> Engine:
        return create_engine(self._url.format(database), poolclass=NullPool, connect_args={"options": "-c timezone=UTC"})

    def dump(self, database: str, folder: Path) -> Path:
        out = folder / f"{database}.dump"
        self._run("pg_dump", "--format=custom", f"--file={out}", database)
        return out

    def load(self, database: str, dump: Path) -> None:
        self._run("pg_restore", "--no-owner", "--exit-on-error", "--single-transaction", f"--dbname={database}", str(dump))
        self._run("vacuumdb", "--analyze-only", "--quiet", f"--dbname={database}")  # a dump has no statistics: queries would crawl

    def _run(self, tool: str, *arguments: str) -> None:
        done = subprocess.run([binaries() / tool, *arguments], env=self._env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refused(f"{tool} failed: {(done.stderr.strip().splitlines() or ['it gave no reason'])[-1]}")


def _major() -> int:
    said = subprocess.run([binaries() / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.split()[-1].partition(".")[0])


@contextmanager
def _server_of(home: Path) -> Iterator[_Server]:
    """The server of the stack that runs on `home`; where none runs, one for the moment."""
    try:
        lock = lock_home(home)
    except Invalid:
        if not running_env(home):
            raise Transient(f"the stack on {home} is starting or stopping: try again in a moment") from None
        password = (home / "secrets" / "postgres-password").read_text().strip()
        yield _Server(Path((home / "run" / "postgres-socket").read_text().strip()), password)
        return
    with lock, EmbeddedPostgres(home) as postgres:
        yield _Server(postgres.socket, postgres.password)
