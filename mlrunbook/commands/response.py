"""`mlrunbook incidents severity|handover|go-on`: how an incident is handled, over the gateway's REST API."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from mlrunbook.commands import show
from mlrunbook.commands.incidents import AsJson, IncidentId, TokenFile, connect
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.roles import Duty, Role

AnyRole = StrEnum("AnyRole", {one.name: one.value for one in (*Duty, *Role)})  # type: ignore[misc]
Note = Annotated[str, typer.Option("--note", help="For whoever reads the timeline.")]


def severity(
    incident_id: IncidentId,
    severity: Annotated[Severity, typer.Argument(help="What it is now.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; people are told, and it goes on the timeline.")],
    token_file: TokenFile = None,
) -> None:
    """Raise the severity, or lower it. A higher one begins containment again, and approvals given for less are asked for again."""
    with connect(token_file) as gateway:
        one = gateway.set_severity(incident_id, severity.value, reason)
    typer.echo(show.plain(f"{one['id']} is {one['severity']}"))


def handover(
    incident_id: IncidentId,
    to: Annotated[str, typer.Option("--to", help="Who has it from now on.")],
    role: Annotated[AnyRole, typer.Option("--role", help="A role of the escalation matrix, or a duty in this incident.")],
    note: Note = "",
    token_file: TokenFile = None,
) -> None:
    """Hand a role over: pages and notices name the new person."""
    with connect(token_file) as gateway:
        one = gateway.hand_over(incident_id, role.value, to, note)
    typer.echo(show.plain(f"{one['id']}: {to} is {role.value.replace('_', ' ')} now"))


def go_on(incident_id: IncidentId, note: Note = "", token_file: TokenFile = None) -> None:
    """Let automation go on: it stops when incidents open again and again."""
    with connect(token_file) as gateway:
        one = gateway.go_on(incident_id, note)
    typer.echo(show.plain(f"{one['id']}: automation goes on"))


def silenced(json: AsJson = False) -> None:
    """List alerts that nobody was told of, because of a silence or maintenance."""
    with connect() as gateway:
        found = gateway.silenced()
    if json:
        show.as_json(found)
        return
    for one in found:
        seen = f"{one['status']}, {one['count']} time(s), last {one['lastSeenAt'][:16].replace('T', ' ')} UTC"
        typer.echo(show.plain(f"{one['model']} {one['alert']} from {one['source']}: {seen}; {one['why']}, until {one['until'][:16]}"))
    if not found:
        typer.echo("no silenced alerts")
