"""`mlrunbook report` and `mlrunbook incidents ...`: incidents over the gateway's REST API."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlrunbook.cli import render
from mlrunbook.domain.actions import digest_prefix
from mlrunbook.domain.errors import Invalid, Refused, Transient
from mlrunbook.domain.incident import Case, ClockName, IncidentType, Severity, Status, Subtype

if TYPE_CHECKING:
    from mlrunbook.cli.gateway_client import Gateway

# A timeline may still get its review after the incident is over: `--follow` ends after this many looks without news.
QUIET_LOOKS = 3

TIMES = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]


class Part(StrEnum):
    REVIEWED = "reviewed"
    APPROVED = "approved"


app = typer.Typer(no_args_is_help=True, help="Look at incidents, acknowledge, decide, resolve, close.")

IncidentId = Annotated[str, typer.Argument(metavar="ID", help="The incident's id, e.g. incident_12.")]
TokenFile = Annotated[Path | None, typer.Option("--token-file", help="File that holds your token; default MLRUNBOOK_GATEWAY_TOKEN.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="List this many at most.")]
Before = Annotated[
    int | None,
    typer.Option(
        "--before", metavar="NUMBER", min=1, max=2**31 - 1, help="Only what is older: the number that the list before ended with."
    ),
]
Reason = Annotated[str, typer.Option("--reason", help="Why; it goes on the timeline.")]


def report(  # noqa: PLR0913 - its parameters are the command's options
    model: Annotated[str, typer.Option("--model", help="The model's id, e.g. predictive_maintenance.")],
    severity: Annotated[Severity, typer.Option("--severity", help="As you see it; measuring may raise it.")],
    type: Annotated[IncidentType, typer.Option("--type")],
    description: Annotated[str, typer.Option("--description", help="What is wrong.")],
    impact: Annotated[str, typer.Option("--impact", help="What it does to the business.")] = "",
    reported_by: Annotated[str | None, typer.Option("--reported-by", help="Default: the name of the token.")] = None,
    subtype: Annotated[Subtype | None, typer.Option("--subtype", help="What kind of security or compliance incident.")] = None,
    unknown_model: Annotated[bool, typer.Option("--unknown-model", help="Report it although nobody knows the model.")] = False,
    token_file: TokenFile = None,
    json: AsJson = False,
) -> None:
    """Report an incident: opens one, or joins the one that is open."""
    body = {"severity": severity.value, "type": type.value, "description": description, "impact": impact}
    with connect(token_file) as gateway:
        more = ({"reportedBy": reported_by} if reported_by else {}) | ({"subtype": subtype.value} if subtype else {})
        made = gateway.report(model, body | more | {"unknownModel": unknown_model})
    if json:
        render.as_json(made)
        return
    words = "joined: it was open already" if made["joined"] else "opened"
    if made["unknownModel"]:
        typer.echo(render.plain(f"{made['id']} {words}. {made['unknownModel'][:1].upper()}{made['unknownModel'][1:]}"))
        return
    typer.echo(render.plain(f"{made['id']} {words}. Watch it: mlrunbook incidents timeline {made['id']} --follow"))


@app.command("list")
def list_(
    model: Annotated[str | None, typer.Option("--model")] = None,
    status: Annotated[Status | None, typer.Option("--status")] = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only those that are not over.")] = False,
    before: Before = None,
    limit: Limit = 20,
    json: AsJson = False,
) -> None:
    """List incidents, newest first."""
    with connect() as gateway:
        asked = {"status": status.value if status else None, "open": only_open or None, "before": before}
        found, goes_on = gateway.incidents(model, **asked, limit=limit)
    if json:
        render.as_json(found)
    elif found:
        render.console().print(render.incident_table(found, _now()))
    else:
        typer.echo("no incidents")
    render.note_older(goes_on)


@app.command("show")
def show_(
    incident_id: IncidentId,
    messages: Annotated[bool, typer.Option("--messages", help="Also the alerts' messages as they came, and how each was read.")] = False,
    json: AsJson = False,
) -> None:
    """Show one incident: what was reported, found, planned, decided and done."""
    from mlrunbook.cli import messages as of_alerts

    with connect() as gateway:
        one = gateway.incident(incident_id)
        came = gateway.messages(incident_id) if messages else []
    if json:
        render.as_json(one | ({"messages": came} if messages else {}))
        return
    console = render.console()
    for part in (*render.incident_page(one, _now()), *(of_alerts.page(came, _now()) if messages else ())):
        console.print(part)


@app.command()
def timeline(
    incident_id: IncidentId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Live, until the incident is over or you press Ctrl-C.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.01, help="Seconds between two looks of --follow.")] = 1.0,
    before: Before = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Show this many entries at most, the newest.")] = 1000,
    json: Annotated[bool, typer.Option("--json", help="For scripts; with --follow one object a line.")] = False,
) -> None:
    """Show the timeline, times in UTC; of a long one the newest entries."""
    if follow and before is not None:
        raise Invalid("--before is of what has been, --follow of what comes: give one of them", field="before")
    with connect() as gateway:
        if follow:
            _follow(gateway, incident_id, every, as_lines=json)
            return
        entries, goes_on = gateway.end_of_timeline(incident_id, before=before, limit=limit)
    if json:
        render.as_json(entries)
    else:
        _print_entries(entries, None)
    render.note_older(goes_on)


@app.command()
def review(
    incident_id: IncidentId,
    from_: Annotated[Path | None, typer.Option("--from", metavar="FILE", help="Put this text in its place; signatures end.")] = None,
    token_file: TokenFile = None,
) -> None:
    """Print the post-incident review, in Markdown; or put your text in its place."""
    with connect(token_file) as gateway:
        text = gateway.edit_review(incident_id, _read(from_)) if from_ else gateway.review(incident_id)
    typer.echo("\n".join(render.plain(line) for line in text.splitlines()))


@app.command("sign-review")
def sign_review(
    incident_id: IncidentId,
    as_: Annotated[Part, typer.Option("--as", help="Who approves is another person than who reviewed.")],
    token_file: TokenFile = None,
) -> None:
    """Sign the review: Reviewed By, then Approved By. Ends the reminders of its deadline."""
    with connect(token_file) as gateway:
        gateway.sign_review(incident_id, as_.value)
    typer.echo(render.plain(f"the review of {incident_id} is {as_.value}"))


@app.command()
def verify(
    incident_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The incident's id, e.g. incident_12.")] = None,
    head: Annotated[str, typer.Option("--head", help="Also against the last line of a page: 'Chain 31/57 9f3a... a1b2c3-5d2e...'.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Every incident, and whether one was deleted.")] = False,
) -> None:
    """Check that nobody has changed an incident in the database: timeline, approvals, journal, plans, records, evidence."""
    from mlrunbook.cli import verifying

    if (incident_id is None) is not every:
        raise Invalid("name one incident, or give --all", field="id")
    if every and head:
        raise Invalid("--head is of one incident: name it", field="head")
    with connect() as gateway:
        typer.echo(render.plain(verifying.one(gateway, incident_id, head) if incident_id else verifying.all_(gateway)))


@app.command()
def ack(incident_id: IncidentId, token_file: TokenFile = None) -> None:
    """Say that you have it."""
    with connect(token_file) as gateway:
        one = gateway.acknowledge(incident_id)
    typer.echo(render.plain(f"{one['id']} acknowledged by {one['acknowledgedBy']}"))


@app.command()
def approve(
    incident_id: IncidentId,
    plan: Annotated[str | None, typer.Option("--plan", metavar="DIGEST", help="Which plan; its first 8 characters do.")] = None,
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    token_file: TokenFile = None,
) -> None:
    """Show the plan that waits, and approve exactly that."""
    _decide(incident_id, plan, "approved", reason, yes, token_file)


@app.command()
def reject(
    incident_id: IncidentId,
    plan: Annotated[str | None, typer.Option("--plan", metavar="DIGEST", help="Which plan; its first 8 characters do.")] = None,
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    token_file: TokenFile = None,
) -> None:
    """Show the plan that waits, and reject exactly that."""
    _decide(incident_id, plan, "rejected", reason, yes, token_file)


@app.command()
def resolve(
    incident_id: IncidentId,
    what: Annotated[str, typer.Option("--what", help="What fixed it.")],
    root_cause: Annotated[str, typer.Option("--root-cause")] = "",
    token_file: TokenFile = None,
) -> None:
    """Say that a human fixed it: the recovery is measured next."""
    with connect(token_file) as gateway:
        one = gateway.resolve(incident_id, what, root_cause)
    typer.echo(render.plain(f"{one['id']}: noted; it is resolved once the recovery is measured"))


@app.command()
def close(
    incident_id: IncidentId,
    reason: Reason = "",
    false_alarm: Annotated[bool, typer.Option("--false-alarm", help="Nothing was wrong; needs a reason.")] = False,
    keep_containment: Annotated[bool, typer.Option("--keep-containment", help="Leave it in force: serving stays stopped, say.")] = False,
    token_file: TokenFile = None,
) -> None:
    """Close a resolved incident, or with a reason one that nothing measures or that was reported anew; or call it a false alarm."""
    with connect(token_file) as gateway:
        one = gateway.close(incident_id, reason, keep_containment=keep_containment, false_alarm=false_alarm)
    typer.echo(render.plain(f"{one['id']} is {one['status'].replace('_', ' ')}"))


@app.command()
def evidence(
    incident_id: IncidentId,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write the files there, each checked.")] = None,
) -> None:
    """List what was preserved before anything was altered, or write it out with its SHA256SUMS."""
    from mlrunbook.cli import bundle

    with connect() as gateway:
        one = gateway.incident(incident_id)
        if not one["evidence"]:
            raise Refused(f"{incident_id} has no evidence: nothing has been preserved yet")
        if out is None:
            typer.echo("\n".join(render.plain(f"{file['sha256']}  {file['name']} ({file['bytes']} bytes)") for file in one["evidence"]))
            return
        written = bundle.write(out, one["evidence"], lambda name: gateway.evidence(incident_id, name), head=gateway.head(incident_id))
    typer.echo(render.plain(f"{written} files in {out}, each fits its SHA-256; check again: cd {out} && sha256sum --check SHA256SUMS"))


@app.command()
def notified(
    incident_id: IncidentId,
    clock: Annotated[ClockName, typer.Option("--clock", help="Which law.")],
    reference: Annotated[str, typer.Option("--reference", help="Of the notification, such as the authority's case number.")] = "",
    not_required: Annotated[str, typer.Option("--not-required", metavar="WHY", help="Instead: why no notification is required.")] = "",
    at: Annotated[datetime | None, typer.Option("--at", help="When, in UTC; default: now.", formats=TIMES)] = None,
    token_file: TokenFile = None,
) -> None:
    """Record that the authority was notified, or why nobody need be: the reminders end."""
    body = {"reference": reference, "notRequired": not_required, "at": _utc(at)}
    with connect(token_file) as gateway:
        made = gateway.notified(incident_id, clock.value, body)
    typer.echo(render.plain(made["sentence"]))


@app.command("clock")
def clock_(
    incident_id: IncidentId,
    clock: Annotated[ClockName, typer.Option("--clock", help="Which law.")],
    case: Annotated[Case, typer.Option("--case", help="What the incident is to that law.")],
    aware_at: Annotated[datetime | None, typer.Option("--aware-at", help="Since when it is known, in UTC.", formats=TIMES)] = None,
    token_file: TokenFile = None,
) -> None:
    """Say what the incident is to a law: starts its clock, or moves the deadline. Not legal advice."""
    with connect(token_file) as gateway:
        made = gateway.state_case(incident_id, clock.value, {"case": case.value, "awareAt": _utc(aware_at)})
    typer.echo(render.plain(made["sentence"]))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot read {file}: {error}") from error


def _utc(at: datetime | None) -> str | None:
    return at.replace(tzinfo=UTC).isoformat() if at else None


def connect(token_file: Path | None = None) -> Gateway:
    from mlrunbook.cli.gateway_client import Gateway

    return Gateway(token_file)


def _decide(incident_id: str, wanted: str | None, decision: str, reason: str, yes: bool, token_file: Path | None) -> None:
    console = render.console()
    with connect(token_file) as gateway:
        one = gateway.incident(incident_id)
        plan = _chosen(one, wanted)
        console.print(render.styled(f"{incident_id}: {plan['kind']} plan", "bold"))
        for part in (*render.plan_page(plan), *render.precedents(one)):
            console.print(part)
        if not yes:
            if not sys.stdin.isatty():
                raise Invalid("there is no terminal to ask on: read the plan above, then repeat with --yes and its --plan")
            if not typer.confirm("Approve exactly this?" if decision == "approved" else "Reject it?"):
                raise Refused("nothing was decided; the plan still waits")
        made = gateway.decide(incident_id, plan["digest"], decision, reason)
    console.print(render.styled(f"{made['decision']} by {made['approver']}; {made['why']}"))


def _chosen(one: Mapping[str, Any], wanted: str | None) -> Mapping[str, Any]:
    """The plan meant: the one that waits; or, by its digest, any that stands (the gateway says what may still be decided about it)."""
    see = f"see `mlrunbook incidents show {one['id']}`"
    if wanted is not None:
        prefix = digest_prefix(wanted)
        found = [plan for plan in one["plans"] if plan["digest"].startswith(prefix)]
        if not found:
            raise Invalid(f"{one['id']} has no standing plan {prefix}: it was replaced, or nobody proposed it; {see}")
    else:
        found = render.waiting(one)
        if not found:
            stand = "; ".join(f"{_named(plan)}: {plan['why']}" for plan in one["plans"]) or "none is proposed"
            raise Refused(f"no plan of {one['id']} waits for a decision ({stand}); {see}")
    if len(found) > 1:
        raise Invalid(f"{len(found)} plans of {one['id']} wait: choose with --plan: {', '.join(_named(plan) for plan in found)}")
    return found[0]


def _named(plan: Mapping[str, Any]) -> str:
    what = "; ".join(action["summary"] for action in plan["actions"])
    return f"{plan['digest'][: render.SHORT_DIGEST]} ({plan['kind']}: {what})"


def _follow(gateway: Gateway, incident_id: str, every: float, *, as_lines: bool) -> None:
    seen, quiet, day, lost = 0, 0, None, False
    try:
        while quiet < QUIET_LOOKS:
            try:
                over = not Status(gateway.incident(incident_id)["status"]).is_open
                entries = gateway.timeline(incident_id, after=seen)
            except Transient as error:  # a part restarts: the timeline goes on where it was
                if not seen:
                    raise
                if not lost:
                    typer.echo(render.plain(f"{error}; still trying"), err=True)
                lost = True
                time.sleep(every)
                continue
            lost = False
            if as_lines:
                import json

                for entry in entries:
                    typer.echo(json.dumps(entry))
            else:
                day = _print_entries(entries, day)
            seen = entries[-1]["seq"] if entries else seen
            quiet = quiet + 1 if over and not entries else 0
            time.sleep(every)
    except KeyboardInterrupt:
        return


def _print_entries(entries: list[dict[str, Any]], day: date | None) -> date | None:
    """Print them, with the date where a new day begins; return the last one's."""
    console = render.console()
    for entry in entries:
        if (today := render.parsed(entry["at"]).date()) != day:
            console.print(render.styled(f"{today} UTC", "dim"))
            day = today
        console.print(render.timeline_row(entry))
    return day


def _now() -> datetime:
    return datetime.now(UTC)
