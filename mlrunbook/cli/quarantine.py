"""`mlrunbook quarantine ...`: what trusted senders sent and the gateway could not use."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from mlrunbook.cli import render
from mlrunbook.cli.incidents import AsJson, Before, TokenFile, connect
from mlrunbook.domain.plural import counted

app = typer.Typer(no_args_is_help=True, help="Messages that came in and could not be used.")

Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why nobody needs it.")]
Number = Annotated[int, typer.Argument(metavar="NUMBER", help="As `mlrunbook quarantine list` shows it.", min=1)]


@app.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", help="Those that were replayed or discarded too.")] = False,
    source: Annotated[str | None, typer.Option("--source", help="Only of this format, such as grafana.")] = None,
    before: Before = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="List this many at most.")] = 100,
    token_file: TokenFile = None,
    json: AsJson = False,
) -> None:
    """List what waits, newest first."""
    with connect(token_file) as gateway:
        found = gateway.quarantine(all=all_, source=source, before=before, limit=limit)
    if json:
        render.as_json(found)
    elif not found["quarantined"]:
        typer.echo("nothing is quarantined")
    else:
        listing, now = render.grid(6, None, None, None), datetime.now(UTC)
        listing.add_row("Number", "Source", "Came, UTC", "Why")
        for row in found["quarantined"]:
            became = _became(row)
            words = (str(row["number"]), row["source"], render.clock(row["receivedAt"], now), became or row["error"])
            listing.add_row(*(render.styled(word, "dim" if became else "") for word in words))
        render.console().print(listing)
    render.note_older(found["before"])


@app.command("show")
def show_(number: Number, token_file: TokenFile = None, json: AsJson = False) -> None:
    """Show one message as it came, and why it could not be used."""
    with connect(token_file) as gateway:
        kept = gateway.quarantined(number)
    if json:
        render.as_json(kept)
        return
    typer.echo(f"{kept['source']}, sent by {render.plain(kept['sender'] or 'nobody who is noted')}, {kept['receivedAt']}")
    typer.echo(f"proven {kept['proven']}; came {counted(kept['times'], 'time')}")
    typer.echo(f"not used because: {render.plain(kept['error'])}")
    if became := _became(kept):
        typer.echo(render.plain(became))
    for name, value in kept["headers"].items():
        typer.echo(f"{render.plain(name)}: {render.plain(value)}")
    typer.echo("\n".join(render.plain(line) for line in kept["body"].splitlines()))


@app.command()
def replay(number: Number, token_file: TokenFile = None, json: AsJson = False) -> None:
    """Read one again, after `intake.models` of the policy says what it is about for example."""
    with connect(token_file) as gateway:
        receipt = gateway.replay(number)
    if json:
        render.as_json(receipt)
    else:
        typer.echo(render.receipt(receipt))


@app.command()
def discard(number: Number, reason: Reason, token_file: TokenFile = None, json: AsJson = False) -> None:
    """Say that nobody needs one: it is kept with your name and reason, waits no more, and cannot be replayed."""
    with connect(token_file) as gateway:
        gone = gateway.discard(number, reason)
    if json:
        render.as_json(gone)
    else:
        typer.echo(render.plain(f"number {gone['number']}: {_became(gone)}"))


def _became(row: Mapping[str, Any]) -> str | None:
    """What became of it; None while it waits."""
    if gone := row.get("discarded"):
        return f"discarded by {gone['by']}: {gone['reason']}"
    return f"replayed: {', '.join(row['incidents']) or 'no incident'}" if row["replayedAt"] else None
