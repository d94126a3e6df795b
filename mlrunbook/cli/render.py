"""How the command line shows things: plain text made safe, severities in colour, UTC times with their age, tables for 80 columns.

Everything that came from outside is hostile: consoles here read no markup, and `plain` takes what a terminal would obey.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from mlrunbook.domain.plural import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

SEVERITY_STYLES = {"critical": "bold white on red", "high": "bold red", "medium": "yellow", "low": "cyan"}
STATUS_STYLES = {"detected": "red", "investigating": "yellow", "resolved": "green", "closed": "green", "false_alarm": "dim"}
KIND_STYLES = {
    "page": "red",
    "plan": "yellow",
    "approval": "yellow",
    "action": "green",
    "recovery": "green",
    "diagnosis": "magenta",
    "status": "bold",
}
DECISION_STYLES = {"pending": "bold yellow", "approved": "green", "rejected": "red"}
OUTCOME_STYLES = {"open": "bold red", "end": "green", "quarantine": "bold yellow", "change": "cyan"}
SHORT_DIGEST = 12
PRECEDENTS = "Incidents like it, and what fixed them"
UNKNOWN_SHOWN = 3
_BREAKS = "\n\r\t\v\f\x85\u2028\u2029"
_DROPPED = ("Cc", "Cf", "Cs")  # control characters, invisible and direction-changing ones, lone surrogates


def plain(value: object) -> str:
    """One line without anything a terminal would obey or hide."""
    spaced = "".join(" " if c in _BREAKS else c for c in str(value))
    return "".join(c for c in spaced if unicodedata.category(c) not in _DROPPED)


def console() -> Console:
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False)


def note_limit(found: Sequence[object], limit: int) -> None:
    """Where a list may have been cut, that it may go on; apart from what a script reads."""
    if len(found) == limit:
        typer.echo(f"{limit} listed; there may be more: --limit lists more", err=True)


def note_older(goes_on: object) -> None:
    """The same, with how it goes on."""
    if goes_on is not None:
        typer.echo(f"older ones: add --before {goes_on}", err=True)


def styled(value: object, style: str = "") -> Text:
    from rich.text import Text

    return Text(plain(value), style=style)


def severity(value: str) -> Text:
    return styled(value.upper(), SEVERITY_STYLES.get(value, ""))


def status(value: str) -> Text:
    return styled(value.replace("_", " "), STATUS_STYLES.get(value, ""))


def as_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


def receipt(got: Mapping[str, Any]) -> str:
    """What the gateway made of a message."""
    parts = [f"{counted(got['accepted'], 'alert')} taken in", counted(got["changes"], "change"), f"{got['quarantined']} quarantined"]
    if got["quarantined"]:
        parts.append("see `mlrunbook quarantine list`")
    if got["duplicate"]:
        parts.append("it came before")
    return plain("; ".join([*parts, f"incidents: {', '.join(got['incidents'])}" if got["incidents"] else "no incident"]))


def verdict_row(outcome: str, happens: str) -> Table:
    """What a message, or a part of it, would do."""
    table = grid(10, None)
    table.add_row(styled(outcome.capitalize(), OUTCOME_STYLES.get(outcome, "")), styled(happens))
    return table


def parsed(at: str) -> datetime:
    return datetime.fromisoformat(at).astimezone(UTC)


def clock(at: str | None, now: datetime) -> str:
    """ "12:03:11 (4m ago)"; with its date when that is another day's; "-" when not yet."""
    if at is None:
        return "-"
    then = parsed(at)
    day = "" if then.date() == now.date() else f"{then:%Y-%m-%d} "
    seconds = (now - then).total_seconds()
    return f"{day}{then:%H:%M:%S} ({_span(seconds)} ago)" if seconds >= 0 else f"{day}{then:%H:%M:%S} (in {_span(-seconds)})"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def grid(*widths: int | None) -> Table:
    """Columns without lines; None: as wide as there is room, folded with a hanging indent."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    for width in widths:
        table.add_column(width=width, overflow="fold")
    return table


def incident_table(incidents: Sequence[Mapping[str, Any]], now: datetime) -> Table:
    from rich import box
    from rich.console import Group
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("Incident", no_wrap=True)
    table.add_column("Severity", no_wrap=True)
    table.add_column("Status", no_wrap=True)
    table.add_column("Detected, UTC", no_wrap=True)
    table.add_column("What", overflow="fold")
    for one in incidents:
        what = styled(one["description"], "dim")
        what.no_wrap, what.overflow = True, "ellipsis"
        then = parsed(one["detectedAt"])
        at = f"{then:%H:%M:%S}" if then.date() == now.date() else f"{then:%Y-%m-%d}"
        age = _span(max((now - then).total_seconds(), 0.0))
        table.add_row(
            plain(one["id"]), severity(one["severity"]), status(one["status"]), f"{at} {age} ago", Group(styled(one["model"]), what)
        )
    return table


def item_table(items: Sequence[Mapping[str, Any]]) -> Table:
    from mlrunbook.domain.roles import Role  # Pydantic: not for --help

    table = grid(5, 12, 10, 11, None)
    table.add_row(*(styled(title, "bold") for title in ("Item", "Incident", "Due", "Status", "What, and who")))
    for one in items:
        style = "bold red" if one["overdue"] else "green" if one["endedAt"] else ""
        what = f"{one['action']} ({Role.named(one['ownerRole'])})" + (f": {one['note']}" if one["note"] else "")
        table.add_row(
            str(one["id"]), styled(one["incidentId"]), styled(one["dueAt"][:10], style), styled(one["status"], style), styled(what)
        )
    return table


def incident_page(one: Mapping[str, Any], now: datetime) -> Iterable[Any]:
    """Everything about one incident, part by part, for a console to print."""
    from rich.text import Text

    yield from _reported(one)
    yield Text()
    yield _times(one, now)
    yield _duties(one)
    for title, lines in _sections(one, now):
        yield from _section(title, lines)
    for plan in waiting(one):
        yield Text()
        yield styled(f"Decide: mlrunbook incidents approve {one['id']} --plan {plan['digest'][:SHORT_DIGEST]}", "bold yellow")


def _reported(one: Mapping[str, Any]) -> Iterable[Text]:
    """What it is, of which model, and in whose words."""
    from rich.text import Text

    yield Text("  ").join([styled(one["id"], "bold"), severity(one["severity"]), status(one["status"])])
    version = f" {one['modelVersion']}" if one["modelVersion"] else ""
    alerts = f", {counted(one['alertCount'], 'alert')}" if one["alertCount"] else ""
    kinds = f" ({', '.join(k.replace('_', ' ') for k in one['subtypes'])})" if one["subtypes"] else ""
    yield styled(f"{one['model']}{version}, {one['type']}{kinds}, reported by {one['reportedBy']}{alerts}")
    yield Text()
    yield styled(one["description"])
    if one["impact"]:
        yield styled(f"Impact: {one['impact']}")
    if one["unknownModel"]:
        yield styled(f"Unknown model: {one['unknownModel']}", "bold yellow")


def _sections(one: Mapping[str, Any], now: datetime) -> Iterable[tuple[str, Iterable[Any]]]:
    """What was found, planned, decided and done, in the order of the runbook; a section without a line is left out."""
    plans = [plan for plan in one["plans"] if plan["kind"] != "emergency" or plan["waits"]]
    sections: list[tuple[str, list[Any]]] = [
        ("Regulatory deadlines", [_clock(clock) for clock in one["clocks"]]),
        ("Investigation", list(_investigation(one))),
        (PRECEDENTS, one["precedents"]),
        ("Orders", [_order(order) for order in one["orders"]]),
        *((f"{plan['kind'].capitalize()} plan {plan['digest'][:SHORT_DIGEST]}", list(plan_page(plan))) for plan in plans),
        ("Changes", list(_changes(one["actions"], now)) if one["actions"] else []),
        ("Decisions", [_decision(row, now) for row in one["approvals"]]),
        ("Action items", [_action_item(item) for item in one["actionItems"]]),
    ]
    return [(title, lines) for title, lines in sections if lines]


def _action_item(item: Mapping[str, Any]) -> str:
    return f"{item['id']}. {item['action']} ({item['ownerRole'].replace('_', ' ')}, due {item['dueAt'][:10]}): {item['status']}"


def _order(order: Mapping[str, Any]) -> Text:
    style = {"in_force": "green", "failed": "bold red", "lapsed": "bold red"}.get(order["state"], "")
    said = styled(f"{order['state'].replace('_', ' ')}: {order['summary']}", style)
    return said.append(f"\n  {order['given']}; {order['sentence']}")


def waiting(one: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The plans that wait for a person's decision."""
    return [plan for plan in one["plans"] if plan["waits"]]


def plan_page(plan: Mapping[str, Any]) -> Iterable[Any]:
    """What an approver must see: actions, reasons, what to expect, the numbers, and the digest that binds the decision to them."""
    table = grid(9, None)
    facts = dict(plan["facts"])
    if against := facts.pop("objection", None):
        table.add_row("Against", styled(against, "bold red"))
    for number, action in enumerate(plan["actions"], start=1):
        target = ", ".join(f"{_words(key)} = {_shown(value)}" for key, value in action["target"].items())
        table.add_row("Actions" if number == 1 else "", styled(f"{number}. {action['summary']} [{target}]", "bold"))
    for number, reason in enumerate(r for r in plan["reasons"] if r != against):
        table.add_row("" if number else "Reasons", styled(reason))
    if plan["expected"]:
        table.add_row("Expected", styled(plan["expected"]))
    for number, (key, value) in enumerate(facts.items()):
        table.add_row("" if number else "Numbers", styled(f"{_words(key)}: {_shown(value)}"))
    table.add_row("Decision", styled(f"{plan['decision']}: {plan['why']}", DECISION_STYLES.get(plan["decision"], "")))
    table.add_row("SHA-256", styled(plan["digest"]))
    yield table


def precedents(one: Mapping[str, Any]) -> Iterable[Any]:
    if one["precedents"]:
        yield from _section(PRECEDENTS, one["precedents"])


def timeline_row(entry: Mapping[str, Any]) -> Table:
    table = grid(8, 12, None)
    style = KIND_STYLES.get(entry["kind"], "")
    table.add_row(f"{parsed(entry['at']):%H:%M:%S}", styled(entry["kind"].partition("_")[0], style), styled(entry["text"]))
    return table


def _clock(clock: Mapping[str, Any]) -> Text:
    left = clock["secondsLeft"]
    style = "green" if left is None else "bold red" if left < 86_400 else "yellow"
    return styled(clock["sentence"], style)


def _times(one: Mapping[str, Any], now: datetime) -> Table:
    spans = one["seconds"]
    by = f" by {one['acknowledgedBy']}" if one["acknowledgedBy"] else ""
    rows = [
        ("Started", one["startedAt"], "", None),
        ("Detected", one["detectedAt"], "", spans["toDetect"]),
        ("Answer by", None if one["acknowledgedAt"] else one["respondBy"], "", None),
        ("Acknowledged", one["acknowledgedAt"], by, spans["toAcknowledge"]),
        ("Contained", one["containedAt"], "", spans["toContain"]),
        ("Resolved", one["resolvedAt"], "", spans["toResolve"]),
        ("Closed", one["closedAt"], "", None),
        ("Review due", one["reviewDueAt"], "", None),
    ]
    table = grid(12, None)
    for label, at, more, took in rows:
        if at:
            after = f", after {took:.0f} s" if took is not None else ""
            table.add_row(label, styled(f"{clock(at, now)}{more}{after}"))
    return table


def _duties(one: Mapping[str, Any]) -> Table:
    table = grid(22, None)
    for duty in one["duties"]:
        role = duty["role"].replace("_", " ")
        table.add_row(duty["duty"].replace("_", " ").capitalize(), styled(f"{duty['name']} ({role})" if duty["name"] else role))
    return table


def _investigation(one: Mapping[str, Any]) -> Iterable[Any]:
    if one["diagnosis"]:
        yield one["diagnosis"].get("sentence", "")
    counts = {state: sum(f["state"] == state for f in one["findings"]) for state in ("suspect", "ok", "unknown")}
    if one["findings"]:
        yield "Checklist: " + ", ".join(f"{count} {state}" for state, count in counts.items())
    for finding in one["findings"]:
        if finding["state"] == "suspect":
            yield f"suspect: {finding['sentence']}"
    why = {f["sentence"]: None for f in one["findings"] if f["state"] == "unknown"}
    for sentence in list(why)[:UNKNOWN_SHOWN]:
        yield f"unknown: {sentence}"
    if len(why) > UNKNOWN_SHOWN:
        yield f"and {len(why) - UNKNOWN_SHOWN} more unknown; all of them: mlrunbook incidents show {one['id']} --json"


def _changes(actions: Sequence[Mapping[str, Any]], now: datetime) -> Iterable[Any]:
    table = grid(12, None)
    promoted = {row["target"]["version"] for row in actions if row["kind"] == "promote" and row["state"] in ("done", "already_held")}
    for row in actions:
        after = " (taken back)" if row["undoneBy"] else f" (kept: {row['keptBecause']})" if row["keptBecause"] else ""
        if row["kind"] == "stage" and row["target"]["version"] in promoted and not after:
            after = " (until it was promoted, which emptied the slot)"
        error = f": {row['error']}" if row["error"] else ""
        style = "green" if row["state"] in ("done", "already_held") else "bold red" if row["state"] in ("unknown", "refused") else "yellow"
        at = f"{clock(row['doneAt'], now)}  " if row["doneAt"] else ""
        table.add_row(styled(row["state"].replace("_", " "), style), styled(f"{at}{row['summary']}{after}{error}"))
    yield table


def _decision(row: Mapping[str, Any], now: datetime) -> str:
    proven = "" if row["verified"] else ", unverified"
    person = f"{row['approver']} ({row['role'] or 'no role'}, by {row['door'].replace('_', ' ')}{proven})"
    who = f"policy rule {row['approver']}" if row["door"] == "policy_rule" else person
    reason = f": {row['reason']}" if row["reason"] else ""
    void = f"; void: {row['voidedBecause']}" if row["voidedAt"] else ""
    return f"{clock(row['at'], now)}  {row['planDigest'][:SHORT_DIGEST]} {row['decision']} by {who}{reason}{void}"


def _section(title: str, parts: Iterable[Any]) -> Iterable[Any]:
    from rich.padding import Padding
    from rich.text import Text

    yield Text()
    yield styled(title, "bold underline")
    for part in parts:
        yield Padding(styled(part) if isinstance(part, str) else part, (0, 0, 0, 2))


def _words(camel: str) -> str:
    return "".join(f" {c.lower()}" if c.isupper() else c for c in camel)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_shown(v) for v in value) or "none"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
