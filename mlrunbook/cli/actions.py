"""`mlrunbook actions ...`: the action items of the reviews, over the gateway's REST API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from mlrunbook.cli import render
from mlrunbook.cli.incidents import AsJson, IncidentId, TokenFile, connect
from mlrunbook.domain.incident import ItemStatus

app = typer.Typer(no_args_is_help=True, help="Action items of the post-incident reviews.")

Number = Annotated[int, typer.Argument(metavar="ITEM", help="The item's number, as `mlrunbook actions list` shows it.")]


@app.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", help="Those that are done or dropped too.")] = False,
    overdue: Annotated[bool, typer.Option("--overdue", help="Only those past their date.")] = False,
    json: AsJson = False,
) -> None:
    """List action items, the earliest due first."""
    with connect() as gateway:
        found = gateway.action_items(all=all_, overdue=overdue)
    if json:
        render.as_json(found)
    elif found:
        render.console().print(render.item_table(found))
    else:
        typer.echo("no overdue action items" if overdue else "no action items" if all_ else "no open action items")


@app.command()
def start(item: Number, token_file: TokenFile = None) -> None:
    """Say that somebody works on it, or that a done one is not done after all."""
    _move(item, ItemStatus.IN_PROGRESS, "", token_file)


@app.command()
def done(item: Number, note: Annotated[str, typer.Option("--note", help="What was done.")] = "", token_file: TokenFile = None) -> None:
    """Say that it is done: its reminders end."""
    _move(item, ItemStatus.DONE, note, token_file)


@app.command()
def drop(item: Number, note: Annotated[str, typer.Option("--note", help="Why it need not be done.")], token_file: TokenFile = None) -> None:
    """Say that it need not be done: its reminders end."""
    _move(item, ItemStatus.DROPPED, note, token_file)


@app.command()
def add(
    incident_id: IncidentId,
    action: Annotated[str, typer.Option("--action", help="What is to be done.")],
    owner: Annotated[str, typer.Option("--owner", help="A role, such as ml_team_lead, or a team.")],
    due: Annotated[datetime, typer.Option("--due", help="Until the end of this day, UTC.", formats=["%Y-%m-%d"])],
    token_file: TokenFile = None,
) -> None:
    """Add what the review meeting agreed on."""
    body = {"action": action, "owner": owner, "dueOn": due.date().isoformat()}
    with connect(token_file) as gateway:
        made = gateway.add_action_item(incident_id, body)
    typer.echo(render.plain(f"action item {made['id']} of {made['incidentId']}, due {made['dueAt'][:10]}"))


def _move(item: int, to: ItemStatus, note: str, token_file: TokenFile) -> None:
    with connect(token_file) as gateway:
        made = gateway.move_action_item(item, {"status": to.value, "note": note})
    typer.echo(render.plain(f"action item {made['id']} is {made['status']}: {made['action']}"))
