"""`mlrunbook db ...` and `mlrunbook token ...`: directly on the incident store's database."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from mlrunbook.cli import render, target

if TYPE_CHECKING:
    from sqlalchemy import Engine

db = typer.Typer(no_args_is_help=True, help="The incident store's database.")
token = typer.Typer(no_args_is_help=True, help="Access tokens of people and systems.")

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
    scope: Annotated[list[str], typer.Option("--scope", help="intake, read, operate or approve; may be repeated.")],
    role: Annotated[str | None, typer.Option("--role", help="The person's role in the runbook, e.g. ml_team_lead.")] = None,
) -> None:
    """Create a token. It is printed on stdout, this once: `... > my.token`, a file that its owner alone may read then."""
    from mlrunbook.base import tokens
    from mlrunbook.base.db import transaction
    from mlrunbook.domain.roles import Role

    scopes = _choices(tokens.Scope, scope, "--scope")
    roles = _choices(Role, [role] if role else [], "--role")
    with transaction(_engine()) as conn:
        made = tokens.create(conn, name=name, scopes=scopes, role=str(roles[0]) if roles else None)
    token_id = made.removeprefix(tokens.PREFIX).partition("_")[0]
    typer.echo(f"token {token_id} of {render.plain(name)} ({', '.join(scopes)}); it is shown this once, so keep it safe:", err=True)
    with suppress(OSError):  # a file system, or an output, without modes
        if stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode):
            os.fchmod(sys.stdout.fileno(), 0o600)
    typer.echo(made)


@token.command("list")
def list_(json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """List tokens by their public ids."""
    from sqlalchemy import select

    from mlrunbook.base import tokens
    from mlrunbook.base.db import transaction

    table = tokens.tokens
    shown = [table.c.id, table.c.name, table.c.role, table.c.scopes, table.c.created_at, table.c.revoked_at, table.c.last_used_at]
    with transaction(_engine()) as conn:
        rows = [dict(row._mapping) for row in conn.execute(select(*shown).order_by(table.c.created_at))]
    rows = [row | {key: row[key].isoformat() if row[key] else None for key in ("created_at", "revoked_at", "last_used_at")} for row in rows]
    if json:
        render.as_json(rows)
        return
    now = datetime.now(UTC)
    listing = render.grid(8, None, None, None, None, None)
    listing.add_row("Id", "Name", "Role", "Scopes", "Created, UTC", "Last used")
    for row in rows:
        created = "revoked" if row["revoked_at"] else render.clock(row["created_at"], now)
        used = render.clock(row["last_used_at"], now)
        words = (row["id"], row["name"], row["role"] or "-", ", ".join(row["scopes"]), created, used)
        listing.add_row(*(render.styled(word, "dim" if row["revoked_at"] else "") for word in words))
    render.console().print(listing)


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
