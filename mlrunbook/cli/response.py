"""`mlrunbook incidents contain|severity|handover|resume-automation`: how an incident is handled, over the gateway's REST API."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlrunbook.cli import render
from mlrunbook.cli.incidents import AsJson, Before, IncidentId, Limit, TokenFile, connect
from mlrunbook.domain.actions import Order
from mlrunbook.domain.errors import Invalid, Refused, Transient
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.plural import counted
from mlrunbook.domain.roles import Duty, Role

if TYPE_CHECKING:
    from mlrunbook.cli.gateway_client import Gateway

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
    typer.echo(render.plain(f"{one['id']} is {one['severity']}"))


def contain(  # noqa: PLR0913 - its parameters are the command's options
    incident_id: IncidentId,
    reason: Annotated[str, typer.Option("--reason", help="Why; people are told, and it goes on the timeline.")],
    stop_serving: Annotated[bool, typer.Option("--stop-serving", help="No model server runs: every prediction request fails.")] = False,
    route: Annotated[str | None, typer.Option("--route", metavar="VERSION", help="This version answers every request.")] = None,
    halt_work_orders: Annotated[bool, typer.Option("--halt-work-orders", help="None is made; the pending ones are flagged.")] = False,
    take_back: Annotated[bool, typer.Option("--take-back", help="Take back all containment that is in force.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Annotated[float, typer.Option("--wait", min=0, metavar="SECONDS", help="How long to wait for the result.")] = 60.0,
    token_file: TokenFile = None,
) -> None:
    """Contain it now, on your word: carried out before anything else, read back, journaled. Give exactly one order."""
    wanted = {
        Order.STOP_SERVING: stop_serving,
        Order.ROUTE: route is not None,
        Order.HALT_WORK_ORDERS: halt_work_orders,
        Order.TAKE_BACK: take_back,
    }
    if sum(wanted.values()) != 1:
        raise Invalid("give exactly one of --stop-serving, --route VERSION, --halt-work-orders, --take-back")
    order = next(one for one, is_meant in wanted.items() if is_meant)
    console = render.console()
    with connect(token_file) as gateway:
        one = gateway.incident(incident_id)
        what = order.value.replace("_", " ") + (f" to {route}" if route else "")
        console.print(render.styled(f"{incident_id} {one['model']}: {what}", "bold"))
        console.print(render.styled(f"What follows: {order.expected}"))
        if not yes:
            if not sys.stdin.isatty():
                raise Invalid("there is no terminal to ask on: repeat with --yes")
            if not typer.confirm("Do it now?"):
                raise Refused("nothing was ordered")
        plan = gateway.order(incident_id, order.value, route, reason)
        for action in plan["actions"]:
            console.print(render.styled(f"ordered: {action['summary']}"))
        if plan["decision"] != "approved":
            console.print(render.styled(f"It waits: {plan['why']}"))
            return
        _wait_for(gateway, incident_id, plan, wait)


def _wait_for(gateway: Gateway, incident_id: str, plan: Mapping[str, Any], wait_s: float) -> None:
    """Say how the order ended. One that failed, or that is not in force yet, is an error with what to do next."""
    deadline = time.monotonic() + wait_s
    while True:
        one = gateway.incident(incident_id)
        order = next((o for o in one["orders"] if o["digest"] == plan["digest"]), None)
        state = order["state"] if order else "over"
        if state not in ("requested", "in_progress") or time.monotonic() >= deadline:
            break
        time.sleep(min(0.5, wait_s))
    rows = sorted((row for row in one["actions"] if row["planDigest"] == plan["digest"]), key=lambda row: row["ordinal"])
    for row in rows:
        if row["state"] in ("done", "already_held"):
            words = "Already in place" if row["state"] == "already_held" else "Done and verified"
            typer.echo(render.plain(f"{words}: {row['summary']}"))
    if order and not plan["actions"]:
        typer.echo("Nothing was in force yet; what was ordered and not begun is withdrawn")
    if order and state in ("failed", "lapsed", "rejected", "replaced"):
        raise Refused(f"{state}: {order['sentence']}" + ("; do it by hand" if state in ("failed", "lapsed") else ""))
    if state in ("requested", "in_progress"):
        how = "begun, not verified yet" if rows else "the next run carries it out, and on-call is paged if that takes too long"
        raise Transient(f"not in force yet: {how}; watch it: mlrunbook incidents timeline {incident_id} --follow")


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
    typer.echo(render.plain(f"{one['id']}: {to} is {role.value.replace('_', ' ')} now"))


def resume_automation(incident_id: IncidentId, note: Note = "", token_file: TokenFile = None) -> None:
    """Let automation go on: it stops when incidents open again and again."""
    with connect(token_file) as gateway:
        one = gateway.resume_automation(incident_id, note)
    typer.echo(render.plain(f"{one['id']}: automation goes on"))


def silenced(before: Before = None, limit: Limit = 100, json: AsJson = False) -> None:
    """List alerts that nobody was told of, because of a silence or maintenance; those that came last first."""
    with connect() as gateway:
        found, goes_on = gateway.silenced(limit=limit, before=before)
    if json:
        render.as_json(found)
        render.note_older(goes_on)
        return
    for one in found:
        seen = f"{one['status']}, {counted(one['count'], 'time')}, last {one['lastSeenAt'][:16].replace('T', ' ')} UTC"
        typer.echo(render.plain(f"{one['model']} {one['alert']} from {one['source']}: {seen}; {one['why']}, until {one['until'][:16]}"))
    if not found:
        typer.echo("no silenced alerts")
    render.note_older(goes_on)
