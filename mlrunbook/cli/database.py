"""`mlrunbook db ...` and `mlrunbook token ...`: directly on the incident store's database."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from mlrunbook.cli import render, target
from mlrunbook.domain.people import person_of

if TYPE_CHECKING:
    from sqlalchemy import Engine

db = typer.Typer(no_args_is_help=True, help="The incident store's database.")
token = typer.Typer(no_args_is_help=True, help="Access tokens of people and systems.")

SPAN = re.compile("([1-9][0-9]{0,4})([hd])")
Choice = TypeVar("Choice", bound=StrEnum)


@db.command()
def upgrade() -> None:
    """Bring the schema to the newest revision. Safe to repeat."""
    from mlrunbook.base.db import upgrade

    upgrade(_engine())
    typer.echo("the schema is at the newest revision")


@token.command()
def create(
    name: Annotated[str, typer.Argument(help="The person or system it is for.")],
    scope: Annotated[
        list[str], typer.Option("--scope", help="predict, outcomes, alerts, report, read, operate or approve; may be repeated.")
    ],
    role: Annotated[str | None, typer.Option("--role", help="The person's role in the runbook, e.g. ml_team_lead.")] = None,
    expires: Annotated[str | None, typer.Option("--expires", metavar="90d", help="For how long it works: hours (h) or days (d).")] = None,
    sender: Annotated[
        list[str] | None,
        typer.Option("--sender", help="It posts for this alone: an alert format, email, report or changes; may be repeated."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="It is good for this model alone; `*` and `?` fit any text; may be repeated.")
    ] = None,
    person: Annotated[str | None, typer.Option("--person", help="The id of the person; without it, the name in small letters.")] = None,
) -> None:
    """Create a token. It is printed on stdout, this once: `... > my.token`, a file that its owner alone may read then."""
    from mlrunbook.base import tokens
    from mlrunbook.base.db import transaction
    from mlrunbook.domain.roles import Role

    scopes = _choices(tokens.Scope, scope, "--scope")
    roles = _choices(Role, [role] if role else [], "--role")
    limits = tokens.Limits(_senders(sender or ()), tuple(model or ()), datetime.now(UTC) + _span(expires) if expires else None)
    with transaction(_engine()) as conn:
        made = tokens.create(conn, name=name, scopes=scopes, role=str(roles[0]) if roles else None, person=person or "", limits=limits)
    token_id = made.removeprefix(tokens.PREFIX).partition("_")[0]
    until = f", until {limits.expires_at:%Y-%m-%d %H:%M} UTC" if limits.expires_at else ""
    typer.echo(f"token {token_id} of {render.plain(name)} ({', '.join(scopes)}{until}); shown only now, so keep it safe:", err=True)
    if tokens.Scope.INTAKE in scopes:
        typer.echo(f"note: {tokens.DEPRECATION}", err=True)
    if tokens.Scope.APPROVE in scopes and not roles:
        typer.echo("note: it decides no plan, because it has no role: create one with --role, such as --role ml_team_lead", err=True)
    with suppress(OSError):  # a file system, or an output, without modes
        if stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode):
            os.fchmod(sys.stdout.fileno(), 0o600)
    typer.echo(made)


def _senders(given: Sequence[str]) -> tuple[str, ...]:
    if not given:
        return ()
    from mlrunbook.gateway.webhooks.registry import SENDERS

    if wrong := [one for one in given if one not in SENDERS]:
        raise typer.BadParameter(f"{wrong[0]!r} is not one of {', '.join(SENDERS)}", param_hint="--sender")
    return tuple(dict.fromkeys(given))


def _span(words: str) -> timedelta:
    found = SPAN.fullmatch(words.strip())
    if found is None:
        raise typer.BadParameter(f"{words!r} is no time span: write 12h or 90d, with at most 5 digits", param_hint="--expires")
    return timedelta(**{{"h": "hours", "d": "days"}[found[2]]: int(found[1])})


@token.command("list")
def list_(json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """List tokens by their public ids."""
    from sqlalchemy import select

    from mlrunbook.base import tokens
    from mlrunbook.base.db import transaction

    table = tokens.tokens
    with transaction(_engine()) as conn:
        shown = [column for column in table.c if column is not table.c.sha256]
        rows = [dict(row._mapping) for row in conn.execute(select(*shown).order_by(table.c.created_at))]
    now, moments = datetime.now(UTC), ("created_at", "expires_at", "revoked_at", "last_used_at")
    over = {row["id"] for row in rows if row["revoked_at"] or (row["expires_at"] and row["expires_at"] <= now)}
    rows = [row | {key: row[key].isoformat() if row[key] else None for key in moments} for row in rows]
    if json:
        render.as_json(rows)
        return
    listing = render.grid(8, *[None] * 6)
    listing.add_row("Id", "Name", "Role", "Scopes", "Created, UTC", "Expires", "Last used")
    for row in rows:
        expires = "revoked" if row["revoked_at"] else "expired" if row["id"] in over else render.clock(row["expires_at"], now)
        dates = (render.clock(row["created_at"], now), expires, render.clock(row["last_used_at"], now))
        name = row["name"] if row["person"] == person_of(row["name"]) else f"{row['name']} ({row['person']})"
        limits = f"; only {', '.join([*row['senders'], *row['models']])}" if row["senders"] or row["models"] else ""
        words = (row["id"], name, row["role"] or "-", ", ".join(row["scopes"]) + limits, *dates)
        listing.add_row(*(render.styled(word, "dim" if row["id"] in over else "") for word in words))
    render.console().print(listing)
    if any("intake" in row["scopes"] for row in rows if row["id"] not in over):
        typer.echo(f"note: {tokens.DEPRECATION}", err=True)


@token.command()
def revoke(token_id: Annotated[str, typer.Argument(metavar="ID", help="The public id, as `token list` shows it.")]) -> None:
    """Revoke a token: it works no more, at once."""
    from mlrunbook.base import tokens
    from mlrunbook.base.db import transaction

    with transaction(_engine()) as conn:
        tokens.revoke(conn, token_id)
    typer.echo(f"token {render.plain(token_id.removeprefix(tokens.PREFIX).partition('_')[0])} is revoked")


def _engine() -> Engine:
    from mlrunbook.base.db import engine

    return engine(target.database_url())


def _choices(kind: type[Choice], given: Sequence[str], option: str) -> list[Choice]:
    known = [member.value for member in kind]
    if wrong := [one for one in given if one not in known]:
        raise typer.BadParameter(f"{wrong[0]!r} is not one of {', '.join(known)}", param_hint=option)
    return [kind(one) for one in given]
