"""One look at a warehouse: a connection of its own, read-only, within a time, and everything it says in our words."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from mlrunbook.adapters.warehouse import files, troubles
from mlrunbook.domain.connection_secrets import secrets_of
from mlrunbook.domain.errors import Refused, RunbookError, Transient
from mlrunbook.domain.policy.connections import connection_variable

if TYPE_CHECKING:
    import ibis.expr.types as ir

CONNECT_TIMEOUT_S = 10
GRACE_S = 5.0  # what a server that ends a statement by itself gets, before we hang up
MOST_STATEMENTS = 20  # of one look, in multiples of its time-out: whatever stands still in it, it ends
AGAIN_S = 0.2  # DuckDB loses an interrupt that comes as a statement begins
DUCKDB, POSTGRES = "duckdb", "postgres"

Rows = list[dict[str, Any]]

_TABLES_OF_POSTGRES = """
    SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f') AND NOT c.relispartition AND n.nspname !~ '^(pg_|information_schema)'
        AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
    ORDER BY 1, 2
"""


class Look:
    """What one look may ask. `dialect`: the name that ibis has for the database."""

    def __init__(self, connection: str, backend: Any, fetch: Callable[[str], Rows], place: files.Place | None) -> None:
        self.connection, self.backend, self.dialect = connection, backend, str(backend.name)
        self._fetch, self._place = fetch, place

    def table(self, name: str, *, by_name: bool = False) -> ir.Table:
        """NotFound where there is none. `by_name`: see `files.Files.scan`."""
        if self._place is not None and self._place.database is None:
            return self._of_files(name, by_name)
        from ibis.common.exceptions import TableNotFound
        from sqlglot import exp

        named = exp.to_table(name, dialect=self.dialect)
        path = tuple(part for part in (named.catalog, named.db) if part)
        database = path if len(path) > 1 else path[0] if path else None
        try:
            return self.backend.table(named.name, database=database)
        except TableNotFound:
            there = self.tables(database)
            same = [one for one in there if one.lower() == named.name.lower()]
            if len(same) == 1:
                return self.backend.table(same[0], database=database)
            raise troubles.no_table(self.connection, name, there) from None

    def query(self, sql: str) -> ir.Table:
        """The rows of a query of the policy. Nothing is created for it: reading suffices."""
        if self._place is not None and self._place.database is None:
            for name in self._place.tables():
                self._of_files(name, by_name=False)
        sql = _one_select(self.connection, sql, self.dialect)
        schema = {POSTGRES: _described_by_postgres, DUCKDB: _described_by_duckdb}.get(self.dialect)
        return self.backend.sql(sql, schema=schema(self.backend.con, sql) if schema else None)

    def rows(self, asked: ir.Expr, steps: Mapping[str, ir.Table] | None = None) -> Rows:
        """`steps`: what `asked` names as tables, each made once however often it is read."""
        return self._fetch(self.sql(asked, steps))

    def sql(self, asked: ir.Expr, steps: Mapping[str, ir.Table] | None = None) -> str:
        from ibis.common.exceptions import OperationNotDefinedError

        once = "MATERIALIZED " if self.dialect in (DUCKDB, POSTGRES) else ""
        try:
            made = [f'"{name}" AS {once}({self.backend.compile(step)})' for name, step in (steps or {}).items()]
            sql = str(self.backend.compile(asked))
        except OperationNotDefinedError as error:
            raise troubles.in_our_words(self.connection, error) from error
        if not made:
            return sql
        return f"WITH {', '.join(made)} SELECT * FROM ({sql}) AS asked"

    def fetch(self, sql: str) -> Rows:
        return self._fetch(sql)

    def tables(self, database: str | tuple[str, ...] | None = None) -> list[str]:
        if self._place is not None and self._place.database is None:
            return sorted(self._place.tables())
        if self.dialect == DUCKDB:  # what ibis asks for it with, DuckDB 2 has no more
            schema = database if isinstance(database, str) else database[-1] if database else None
            rows = self._fetch("SELECT table_schema AS of, table_name AS name FROM information_schema.tables ORDER BY 1, 2")
            return [
                row["name"] if schema or row["of"] == "main" else f"{row['of']}.{row['name']}"
                for row in rows
                if schema in (None, row["of"])
            ]
        return sorted(self.backend.list_tables(database=database))

    def all_tables(self) -> list[str]:
        """Those of other schemas too, as schema.table."""
        if self.dialect != POSTGRES:
            return self.tables()
        found = self._fetch(_TABLES_OF_POSTGRES)
        here = self.backend.current_database
        return [row["name"] if row["schema"] == here else f"{row['schema']}.{row['name']}" for row in found]

    def _of_files(self, name: str, by_name: bool) -> ir.Table:
        assert self._place is not None
        found = self._place.table(name)
        if found is None:
            raise troubles.no_table(self.connection, name, self.tables())
        called = '"' + name.replace('"', '""') + '"'
        scan, db = found.scan(by_name=by_name), self.backend.con
        db.execute(f"CREATE OR REPLACE TEMP VIEW {called} AS SELECT * FROM {scan}")
        # What pandas writes of a time with a zone; ibis does not know this type.
        nanos = [column for column, kind, *_ in db.execute(f"DESCRIBE {called}").fetchall() if kind == "TIMESTAMPTZ_NS"]
        if nanos:
            names = ['"' + column.replace('"', '""') + '"' for column in nanos]
            times = ", ".join(f"CAST({column} AS TIMESTAMPTZ) AS {column}" for column in names)
            db.execute(f"CREATE OR REPLACE TEMP VIEW {called} AS SELECT * REPLACE ({times}) FROM {scan}")
        return self.backend.table(name)


class Warehouse:
    """Opened anew for each look, one look at a time: nothing is shared between threads, nothing is held in between, and what broke is gone
    with the look. Imports nothing before the first one."""

    def __init__(self, connection: str, address: str, token: str | None = None) -> None:
        self.connection = connection
        self._address, self._token = address, token
        self._busy = threading.Lock()

    @property
    def secrets(self) -> Sequence[str]:
        """What no message may hold."""
        return secrets_of(self._address, self._token)

    @contextmanager
    def look(self, timeout_s: float) -> Iterator[Look]:
        """Every error in it is one of ours."""
        if not self._busy.acquire(timeout=2 * timeout_s):
            raise Transient(f"{self.connection}: other looks at it take all the time; it may be free in a moment")
        try:
            with self._opened(timeout_s) as look:
                yield look
        except RunbookError:
            raise
        except Exception as error:
            raise troubles.in_our_words(self.connection, error, secrets=self.secrets, timeout_s=timeout_s) from (
                error if troubles.may_be_chained(error, self.secrets) else None
            )
        finally:
            self._busy.release()

    def _opened(self, timeout_s: float) -> Any:
        kind = self._address.partition(":")[0].lower()
        if kind == DUCKDB and not self._address.startswith(("duckdb://md:", "duckdb:md:")):
            return self._duckdb(timeout_s)
        if kind in ("postgres", "postgresql"):
            return self._postgres(timeout_s)
        return self._any_other()

    @contextmanager
    def _duckdb(self, timeout_s: float) -> Iterator[Look]:
        import ibis

        place = files.Place.of(self._address)
        with files.opened(place, self.connection) as db, _within(MOST_STATEMENTS * timeout_s, db.interrupt):
            backend = ibis.duckdb.from_connection(db)

            def fetch(sql: str) -> Rows:
                with _within(timeout_s, db.interrupt):
                    result = db.execute(sql)
                    names = [column[0] for column in result.description or ()]
                    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

            yield Look(self.connection, backend, fetch, place)

    @contextmanager
    def _postgres(self, timeout_s: float) -> Iterator[Look]:
        import ibis
        import psycopg

        given: dict[str, Any] = {"password": self._token} if self._token else {}
        ms = int(1000 * timeout_s)
        theirs = psycopg.conninfo.conninfo_to_dict(self._address).get("options") or ""
        options = (
            f"{theirs} -c default_transaction_read_only=on -c statement_timeout={ms} -c default_transaction_isolation=repeatable\\ read"
        )
        db = psycopg.connect(
            self._address,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name="mlrunbook",
            options=options,
            tcp_user_timeout=ms + int(1000 * GRACE_S),
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            **given,
        )
        with _within(MOST_STATEMENTS * timeout_s, lambda: _hang_up(db)), db:
            backend = ibis.postgres.from_connection(db)

            def fetch(sql: str) -> Rows:
                with _within(timeout_s + GRACE_S, lambda: _hang_up(db)), db.cursor() as cursor:
                    cursor.execute(sql.encode())
                    names = [column.name for column in cursor.description or ()]
                    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

            yield Look(self.connection, backend, fetch, None)

    @contextmanager
    def _any_other(self) -> Iterator[Look]:
        """Any database of ibis, by the URL that ibis takes. It must bound its queries by itself."""
        import ibis

        try:
            backend = ibis.connect(self._address.replace("TOKEN", self._token) if self._token else self._address)
        except ValueError as error:
            said = f"{connection_variable(self.connection)} is no address that ibis knows: correct it"
            raise Refused(said) from (error if troubles.may_be_chained(error, self.secrets) else None)

        def fetch(sql: str) -> Rows:
            with backend._safe_raw_sql(sql) as cursor:
                names = [column[0] for column in cursor.description]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

        try:
            yield Look(self.connection, backend, fetch, None)
        finally:
            backend.disconnect()


@contextmanager
def _within(timeout_s: float, stop: Callable[[], Any]) -> Iterator[None]:
    """`stop` is called until it has worked: one call may be lost. It must not wait for anything."""
    done = threading.Event()

    def watch() -> None:
        wait_s = timeout_s
        while not done.wait(wait_s):
            wait_s = AGAIN_S
            with suppress(Exception):
                stop()

    watching = threading.Thread(target=watch, name="look-within", daemon=True)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()  # or it would stop the next statement


def _hang_up(db: Any) -> None:
    """The one who waits for the server reads the end at once. Asking the server to cancel would wait for it too."""
    with socket.socket(fileno=os.dup(db.pgconn.socket)) as line:
        line.shutdown(socket.SHUT_RDWR)


def _one_select(connection: str, sql: str, dialect: str) -> str:
    """The query, as sqlglot has read it. A query that closes our parenthesis could else end its own statement and begin another one."""
    import sqlglot
    from sqlglot import exp

    try:
        read = sqlglot.parse(sql, read=dialect)
    except sqlglot.errors.SqlglotError as error:
        raise Refused(f"{connection}: a query in predictions cannot be read ({str(error).splitlines()[0][:200]}); correct it") from error
    statements = [one for one in read if one is not None and not isinstance(one, exp.Semicolon)]
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise Refused(f"{connection}: a query in predictions must be one SELECT and nothing else; correct it")
    return str(statements[0].sql(dialect=dialect))


def _described_by_duckdb(db: Any, sql: str) -> Mapping[str, Any]:
    from ibis.backends.sql.datatypes import DuckDBType

    return {name: DuckDBType.from_string(kind) for name, kind, *_ in db.execute(f"DESCRIBE SELECT * FROM (\n{sql}\n) AS asked").fetchall()}


def _described_by_postgres(db: Any, sql: str) -> Mapping[str, Any]:
    """The columns of a query and their types, as the server describes them: ibis itself would create a view for it."""
    from ibis.backends.sql.datatypes import PostgresType

    with db.cursor() as cursor:
        cursor.execute(f"SELECT * FROM (\n{sql}\n) AS asked LIMIT 0".encode())
        found = {}
        for column in cursor.description:
            known = db.adapters.types.get(column.type_code)
            found[column.name] = PostgresType.from_string(known.regtype if known else "text")
        return found
