"""The incident store: reachable, migrated, writable; tokens; is anybody delivering?"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, NullPool, create_engine, select, text
from sqlalchemy.exc import OperationalError

from mlrunbook.base import db, tokens
from mlrunbook.base.tokens import Scope
from mlrunbook.diagnostics.doctor import Ask, Finding, fail, ok, skew, warn
from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.roles import Role
from mlrunbook.store import tables

OLDEST = 14  # PostgreSQL's oldest supported release
LATE = timedelta(minutes=1)
ENDS_SOON = timedelta(days=14)
CREATE = 'mlrunbook token create "Your Name" --scope'


def store(ask: Ask) -> Iterator[Finding]:
    secret = ask.settings.database_url
    if secret is None:
        yield fail("database", "no database is named", "set MLRUNBOOK_DATABASE_URL, or start the embedded one with `mlrunbook up`")
        return
    wait = {"connect_timeout": 4, "options": "-c timezone=UTC -c statement_timeout=4s -c default_transaction_read_only=on"}
    engine = create_engine(db.normalise_url(secret.get_secret_value()), poolclass=NullPool, connect_args=wait)
    try:
        with engine.connect() as conn:
            yield from _server(conn)
            if (at := _revision(conn)) is None:
                yield fail("schema", "the database is empty", "mlrunbook db upgrade")
                return
            is_newest = yield from _schema(at)
            yield from _writable(conn)
            yield from _delivery(conn)
            if is_newest:  # an older one does not hold all that is looked at
                yield from _tokens(conn, ask)
    except OperationalError as error:
        yield fail(
            "database", f"not reachable: {str(error.orig).strip().splitlines()[0]}", "start PostgreSQL, or correct MLRUNBOOK_DATABASE_URL"
        )


def _server(conn: Connection) -> Iterator[Finding]:
    sent = datetime.now(UTC)
    number, theirs = conn.execute(text("SELECT current_setting('server_version_num')::int, clock_timestamp()")).one()
    received = datetime.now(UTC)
    major = number // 10_000
    if major < OLDEST:
        yield fail("database", f"PostgreSQL {major}", f"upgrade it: {OLDEST} is the oldest that is still maintained")
    else:
        yield ok("database", f"PostgreSQL {major} answers")
    yield skew("clock of the database", theirs, sent, received, resolution_s=0.0)


def _revision(conn: Connection) -> str | None:
    there = conn.execute(text("SELECT to_regclass('alembic_version') IS NOT NULL")).scalar_one()
    return conn.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none() if there else None


def _schema(at: str) -> Generator[Finding, None, bool]:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "mlrunbook.store:migrations")
    scripts = ScriptDirectory.from_config(config)
    newest = scripts.get_current_head()
    known = {script.revision for script in scripts.walk_revisions()}
    if at == newest:
        yield ok("schema", f"at the newest revision, {at}")
    elif at in known:
        yield fail("schema", f"at {at}, the newest is {newest}", "mlrunbook db upgrade")
    else:
        yield fail("schema", f"at {at}, which this release does not know", "install the release that made it: the schema is newer")
    return at == newest


def _writable(conn: Connection) -> Iterator[Finding]:
    """By privileges: nothing is written to find out."""
    if conn.execute(text("SELECT pg_is_in_recovery()")).scalar_one():
        yield fail("database writable", "this is a standby, which only reads", "point MLRUNBOOK_DATABASE_URL at the primary")
        return
    names = [table.name for table in db.metadata.sorted_tables if table in vars(tables).values()]
    allowed = text("SELECT has_table_privilege(:name, 'SELECT') AND has_table_privilege(:name, 'INSERT')")
    refused = [name for name in names if not conn.execute(allowed, {"name": name}).scalar_one()]
    if refused:
        yield fail(
            "database writable", f"no right to write {', '.join(refused)}", "GRANT SELECT, INSERT, UPDATE, DELETE on them to this user"
        )
    else:
        yield ok("database writable", f"all {len(names)} tables of the store")


def _delivery(conn: Connection) -> Iterator[Finding]:
    box = tables.outbox
    due = select(box.c.not_before).where(box.c.delivered_at.is_(None), box.c.cancelled_at.is_(None)).order_by(box.c.not_before).limit(1)
    oldest = conn.execute(due).scalar_one_or_none()
    if oldest is not None and datetime.now(UTC) - oldest > LATE:
        late = int((datetime.now(UTC) - oldest).total_seconds() // 60)
        yield warn(
            "delivery", f"something has been due for {late} min", "is a gateway with a dispatcher running? Its log says what cannot be sent"
        )
    else:
        yield ok("delivery", "nothing is overdue")


def _tokens(conn: Connection, ask: Ask) -> Iterator[Finding]:
    """Ours, as far as they are of this database; and who may approve."""
    for name, wanted, secret in (
        ("platform token", {Scope.OPERATE, Scope.READ}, ask.settings.platform_token),
        ("gateway token", {Scope.READ}, ask.settings.gateway_token),
    ):
        variable = "MLRUNBOOK_" + name.replace(" ", "_").upper()
        if secret is None:
            yield warn(name, f"{variable} is not set", f"{CREATE} {' --scope '.join(sorted(wanted))}, and set it")
        elif not secret.get_secret_value().startswith(tokens.PREFIX):
            yield ok(name, "of another system, which alone can tell what it may")
        elif (owner := tokens.verify(conn, secret.get_secret_value(), note_use=False)) is None:
            said = tokens.why_invalid(conn, secret.get_secret_value()).partition(": ")[0]
            yield fail(name, said, f"{CREATE} {' --scope '.join(sorted(wanted))}, and set {variable}")
        elif missing := wanted - owner.scopes:
            yield fail(name, f"lacks the scope {', '.join(missing)}", f"{CREATE} {' --scope '.join(sorted(wanted))}, and set {variable}")
        else:
            yield ok(name, f"{owner.name}, scopes {', '.join(sorted(owner.scopes))}")
    held = tokens.in_force(conn)
    yield from _approvers(held, ask)
    yield from _old_tokens(held, datetime.now(UTC))


def _old_tokens(held: Sequence[tokens.Held], now: datetime) -> Iterator[Finding]:
    """Those that stop working soon, and those with more rights than anybody needs."""
    ending = [f"{t.id} of {t.name} ({t.expires_at:%Y-%m-%d})" for t in held if t.expires_at and t.expires_at - now <= ENDS_SOON]
    if ending:
        yield warn(
            "tokens that expire", f"within {ENDS_SOON.days} days: {', '.join(ending)}", "create new ones, and hand them over in time"
        )
    if broad := [f"{t.id} of {t.name}" for t in held if Scope.INTAKE in t.scopes]:
        yield warn("tokens with the scope intake", ", ".join(broad), tokens.DEPRECATION)


def _approvers(held: Sequence[tokens.Held], ask: Ask) -> Iterator[Finding]:
    people, approvals = {(one.person, one.role) for one in held if Scope.APPROVE in one.scopes}, ask.policy.for_model(ask.model).approvals
    short: list[PlanKind] = []
    for kind in PlanKind:
        rule = approvals.of(kind)
        can = {person for person, role in people if role in {r.value for r in rule.roles}}
        if len(can) < rule.count:
            short.append(kind)
    if short:
        able = [role for kind in short for role in approvals.of(kind).roles]
        role = Role.ML_TEAM_LEAD if Role.ML_TEAM_LEAD in able else max(able, key=able.count)
        fix = f"{CREATE} approve --scope read --role {role}"
        yield warn("approvers", f"too few people hold a token to decide plans of kind {', '.join(short)}", fix)
    else:
        yield ok("approvers", f"{len(people)} people can decide every kind of plan")
