"""`mlrunbook audit ...`: the runbook's "Regular Audits" by hand, on the configured platform and store."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrunbook.cli import render as show
from mlrunbook.cli import target
from mlrunbook.domain.errors import Invalid

if TYPE_CHECKING:
    from mlrunbook.domain.audits.section import Audit
    from mlrunbook.response.world import World

app = typer.Typer(no_args_is_help=True, help="Hold an audit by hand, list those held, record a drill.")

COLOURS = {"pass": "green", "fail": "red", "not_enough_data": "yellow"}
Model = Annotated[str, typer.Option("--model", help="The model to audit.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write the report there; default: audits in the data folder.")]
Json = Annotated[bool, typer.Option("--json", help="For scripts.")]
Complete = Annotated[bool, typer.Option("--complete", help="The last calendar period that has ended, instead of the days up to now.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Record nothing and open no incident.")]
PREDICTIVE = "predictive_maintenance"


@app.command()
def weekly(model: Model = PREDICTIVE, out: Out = None, json: Json = False, complete: Complete = False, dry_run: DryRun = False) -> None:
    """Review performance, inputs, alerts, incidents and action items of seven days. Exit code: 1 when a limit is broken."""
    _hold("weekly", model, out, as_json=json, complete=complete, dry_run=dry_run)


@app.command()
def monthly(model: Model = PREDICTIVE, out: Out = None, json: Json = False, complete: Complete = False, dry_run: DryRun = False) -> None:
    """Assess bias and fairness over thirty days: every asset type against the others. Exit code: 1 when a limit is broken."""
    _hold("monthly", model, out, as_json=json, complete=complete, dry_run=dry_run)


@app.command()
def quarterly(model: Model = PREDICTIVE, out: Out = None, json: Json = False, complete: Complete = False, dry_run: DryRun = False) -> None:
    """Audit documentation, compliance, performance, access and upkeep of 91 days. Exit code: 1 when a limit is broken."""
    _hold("quarterly", model, out, as_json=json, complete=complete, dry_run=dry_run)


@app.command()
def annual(model: Model = PREDICTIVE, out: Out = None, json: Json = False, complete: Complete = False, dry_run: DryRun = False) -> None:
    """Assess risks and review compliance of 365 days, along the NIST AI RMF. Exit code: 1 when a limit is broken."""
    _hold("annual", model, out, as_json=json, complete=complete, dry_run=dry_run)


@app.command()
def drill(
    what: Annotated[str, typer.Argument(help="What was rehearsed, such as: game day with the night shift.")],
    result: Annotated[str, typer.Option("--result", help="How it went, in a sentence.")] = "",
    gameday: Annotated[Path | None, typer.Option("--gameday", metavar="FILE", help="The gameday.json of `mlrunbook gameday`.")] = None,
    held: Annotated[datetime | None, typer.Option("--held", help="When, in UTC; default: now.", formats=["%Y-%m-%d"])] = None,
) -> None:
    """Record that a drill was held: the quarterly audit asks for one."""
    from mlrunbook.store import audits

    said = "; ".join(part for part in (_score(gameday) if gameday else "", result.strip()) if part)
    if not what.strip() or not said:
        raise Invalid("a drill needs its name and how it went: give --result or --gameday", field="result")
    now = datetime.now(UTC)
    at = held.replace(tzinfo=UTC) if held else now
    if at > now:
        raise Invalid(f"{at:%Y-%m-%d} is yet to come: record a drill when it has been held", field="held")
    with _world().transaction() as conn:
        audits.note_drill(conn, audits.Drill(at, what.strip(), said))
    typer.echo(show.plain(f"noted: {what.strip()} on {at:%Y-%m-%d}: {said}"))


def _score(file: Path) -> str:
    import json

    from mlrunbook.domain.evaluation.performance import percent

    try:
        score = json.loads(file.read_text())["score"]
        first, right = (percent(float(score[key])) for key in ("top1", "right_path"))
        return f"{int(score['runs'])} runs: first cause {first}, right path {right}, harmful actions {int(score['harmful_actions'])}"
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid(f"{file} is no gameday.json: give the one that `mlrunbook gameday` wrote", field="gameday") from error


@app.command("list")
def list_(
    model: Annotated[str | None, typer.Option("--model", help="Only of this model.")] = None,
    before: Annotated[int | None, typer.Option("--before", metavar="ID", help="Only those listed after this audit.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="List this many at most.")] = 100,
    json: Json = False,
) -> None:
    """List the audits that are filed, the newest period first."""
    from mlrunbook.store import audits

    with _world().transaction() as conn:
        found = audits.find(conn, model=model, before=before, limit=limit)
    if json:
        show.as_json([{"id": a.id, "model": a.model, "kind": a.kind, "period": a.period, "verdict": a.verdict} for a in found])
        return
    table = show.grid(4, 10, None, 15, None)
    for row in (("Id", "Audit", "Period", "Verdict", "Incidents"),):
        table.add_row(*(show.styled(cell, "dim") for cell in row))
    for one in found:
        verdict = show.styled(one.verdict.words, COLOURS[one.verdict])
        rest = show.styled(", ".join(one.incident_ids) or "-")
        table.add_row(show.styled(one.id), show.styled(one.kind), show.styled(f"{one.period}, {one.model}"), verdict, rest)
    show.console().print(table)
    show.note_limit(found, limit)


def _hold(kind: str, model: str, out: Path | None, *, as_json: bool, complete: bool, dry_run: bool) -> None:
    from mlrunbook.adapters.reports.audit import render
    from mlrunbook.domain.audits import period
    from mlrunbook.domain.audits.section import Verdict
    from mlrunbook.response.audits import audit as steps

    world = _world()
    now = datetime.now(UTC)
    of = (period.complete if complete else period.up_to)(period.Kind(kind), now)
    audit = steps.examine(world, model, of)
    page = render(audit)
    if not dry_run:
        audit = steps.open_incidents(world, audit)
        filed, page = steps.file(world, audit)
        if filed.at != audit.at and not as_json:
            typer.echo(
                f"that period is filed already ({filed.at:%Y-%m-%d %H:%M} UTC): its report is kept; below, how it looks now", err=True
            )
    folder = out or Path(target.environment().get("MLRUNBOOK_DATA_DIR") or target.data_dir()).expanduser() / "audits"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (re.sub(r"[^A-Za-z0-9.-]+", "-", f"{kind}-{model}-{of.name}") + ".html")
    path.write_bytes(page)
    if as_json:
        show.as_json(_as_dict(audit) | {"report": str(path)})
    else:
        _print(audit)
        typer.echo(show.plain(f"report: {path}"))
    raise typer.Exit(1 if audit.verdict is Verdict.FAIL else 0)


def _print(audit: Audit) -> None:
    console = show.console()
    console.print(show.styled(f"{audit.period.kind.words} of {audit.model}, {audit.period.words}", "bold"))
    table = show.grid(15, 26, None)
    for one in audit.sections:
        change, came = audit.change(one), f"handled as {one.incident_id}" if one.incident_id else one.note
        said = "; ".join(part for part in (one.sentence, change, came) if part)
        table.add_row(show.styled(one.verdict.words, COLOURS[one.verdict]), show.styled(one.title), show.styled(said))
    console.print(table)
    console.print(show.styled(audit.sentence))


def _as_dict(audit: Audit) -> dict[str, object]:
    sections = [
        {
            "key": s.key,
            "title": s.title,
            "verdict": s.verdict,
            "sentence": s.sentence,
            "change": audit.change(s),
            "incidentId": s.incident_id,
            "note": s.note,
        }
        for s in audit.sections
    ]
    period = audit.period
    head = {"model": audit.model, "kind": period.kind, "period": period.name, "verdict": audit.verdict}
    return head | {"since": period.since.isoformat(), "until": period.until.isoformat(), "sections": sections}


def _world() -> World:
    """On the stack that runs, or that the environment names."""
    target.database_url()  # says how to name one where there is none
    os.environ.update({key: value for key, value in target.environment().items() if key.startswith(("MLRUNBOOK_", "PREFECT_API_"))})
    from mlrunbook.bootstrap import world

    return world()
