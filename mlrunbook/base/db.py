"""The one engine helper: PostgreSQL through SQLAlchemy, and migrations under an advisory lock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, MetaData, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, OperationalError

from mlrunbook.base.settings import settings
from mlrunbook.domain.errors import Invalid, Transient, Unstorable

# Named constraints, so that a later migration can find them.
metadata = MetaData(
    naming_convention={"pk": "pk_%(table_name)s", "fk": "fk_%(table_name)s_%(column_0_name)s", "uq": "uq_%(table_name)s_%(column_0_name)s"}
)
LIMIT_EXCEEDED = "54"  # the class of SQLSTATEs: an index row that is too long, for example
MIGRATION_LOCK = 0x6D6C7262  # "mlrb": any constant all processes share


def normalise_url(url: str) -> str:
    """`postgresql://` and `postgres://` mean the psycopg 3 driver here."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise Invalid("MLRUNBOOK_DATABASE_URL is no URL: it must look like postgresql://user@host/name", field="database_url") from error
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise Invalid("MLRUNBOOK_DATABASE_URL must be a postgresql:// URL: only PostgreSQL is supported", field="database_url")
    return parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


@cache
def engine(url: str | None = None) -> Engine:
    """The process's engine for `url`, by default the settings' database."""
    return own_engine(url)


def own_engine(url: str | None = None, *, size: int = 5, overflow: int = 10) -> Engine:
    """An engine whose connections nobody else can use up."""
    if url is None:
        secret = settings().database_url
        if secret is None:
            raise Invalid("no database: set MLRUNBOOK_DATABASE_URL, or start the embedded one with `mlrunbook up`", field="database_url")
        url = secret.get_secret_value()
    return create_engine(
        normalise_url(url),
        pool_size=size,
        max_overflow=overflow,
        pool_pre_ping=True,
        json_serializer=to_json,
        connect_args={"connect_timeout": 5, "options": "-c timezone=UTC -c lock_timeout=15s"},
    )


def to_json(value: Any) -> str:
    """JSON as PostgreSQL takes it: NaN and infinity, which it refuses, are null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None))


def warm(on: Engine) -> None:
    """Open the connections that the pool keeps, while there are descriptors for them. Transient while the store is away."""
    with ExitStack() as held:
        for _ in range(on.pool.size()):  # type: ignore[attr-defined]  # a QueuePool's
            held.enter_context(transaction(on))


@contextmanager
def transaction(on: Engine | None = None) -> Iterator[Connection]:
    """One transaction; commits at the end. A lost or refused connection is Transient, a value that does not fit is Unstorable."""
    try:
        with (on or engine()).begin() as conn:
            yield conn
    except (DataError, psycopg.DataError, UnicodeEncodeError) as error:
        raise _unstorable(error) from error
    except OperationalError as error:
        if str(getattr(error.orig, "sqlstate", None) or "").startswith(LIMIT_EXCEEDED):
            raise _unstorable(error) from error
        raise Transient(f"the incident store is not reachable: {_first_line(error)}; is PostgreSQL up?") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Transient(f"the connection to the incident store broke: {_first_line(error)}") from error
        raise


def _unstorable(error: Exception) -> Unstorable:
    why = _first_line(error) if isinstance(error, DBAPIError) else str(error).splitlines()[0]
    return Unstorable(f"a value cannot be stored ({why[:200]}): look for very long keys, NUL characters, and dates or numbers out of range")


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__


def upgrade(on: Engine | None = None, to: str = "head") -> None:
    """Bring the schema to a revision, by default the newest. Safe to call from several processes at once."""
    from alembic import command
    from alembic.config import Config

    with transaction(on) as conn:
        conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        config = Config()
        config.set_main_option("script_location", "mlrunbook.store:migrations")
        config.attributes["connection"] = conn
        command.upgrade(config, to)
