"""`mlrunbook mode ...` and `mlrunbook observe ...`: how far the runbook goes by itself for each model, over the gateway's REST API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from mlrunbook.cli import render
from mlrunbook.cli.incidents import AsJson, TokenFile, connect

mode = typer.Typer(no_args_is_help=True, help="The modes of models (observe, propose, act): who changed one, and why.")
observe = typer.Typer(no_args_is_help=True, help="Models in mode observe: what would have been done against what happened.")

Model = Annotated[str | None, typer.Option("--model", help="Only of this model.")]


@mode.command("list")
def list_(model: Model = None, json: AsJson = False) -> None:
    """Every change of mode that was seen in the policy, the newest first."""
    with connect() as gateway:
        found = gateway.modes(**({"model": model} if model else {}))["changes"]
    if json:
        render.as_json(found)
    elif not found:
        typer.echo("no mode was ever changed: every model is in mode act")
    for one in [] if json else found:
        was = f"{one['was']} -> " if one["was"] else ""
        why = f"{one['by']}: {one['why']}" if one["by"] else f"nobody has said why: mlrunbook mode record '{one['model']}' --reason '...'"
        typer.echo(render.plain(f"{one['at'][:16].replace('T', ' ')}  {one['model']}  {was}{one['mode']}  (policy {one['policy']})"))
        typer.echo(render.plain(f"    {why}"))


@mode.command()
def record(
    model: Annotated[str, typer.Argument(help="The model or pattern, as in the policy; * for the mode at its top.")],
    reason: Annotated[str, typer.Option("--reason", help="Why its mode was changed.")],
    token_file: TokenFile = None,
) -> None:
    """Put on record why the mode of a model was changed in the policy, in your name."""
    with connect(token_file) as gateway:
        made = gateway.say_why(model, reason)
    typer.echo(render.plain(f"{made['model']} is in mode {made['mode']}; {made['by']}: {made['why']}"))


@observe.command()
def report(
    model: Model = None,
    since: Annotated[datetime | None, typer.Option("--since", help="Only incidents since this day, UTC.", formats=["%Y-%m-%d"])] = None,
    json: AsJson = False,
) -> None:
    """What would have been done in mode observe, and what happened instead."""
    query = {"model": model} if model else {}
    query |= {"since": since.replace(tzinfo=UTC).isoformat()} if since else {}
    with connect() as gateway:
        found = gateway.observations(**query)
    if json:
        render.as_json(found)
        return
    for one in found["observations"]:
        for text in _lines(one):
            typer.echo(render.plain(text))
    typer.echo(render.plain(found["summary"]))


def _lines(one: Mapping[str, Any]) -> list[str]:
    plan = "; ".join(one["plan"]) or f"no plan: {one['whyNoPlan']}"
    sooner = f", {one['minutesSooner']} min after the runbook would have" if one["minutesSooner"] is not None else ""
    return [
        f"{one['incidentId']}  {one['detectedAt'][:16].replace('T', ' ')}  {one['model']}  {one['severity']}  {one['headline']}",
        f"    at once:  {'; '.join(one['atOnce']) or 'nothing'}",
        f"    proposed: {'; '.join([*one['asked'], plan])}",
        f"    happened: {one['happened']}{sooner}" + (f" ({one['over']})" if one["over"] else ""),
        *(f"              {change}" for change in one["byPeople"]),
        "",
    ]
