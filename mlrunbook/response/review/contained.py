"""What the review and the notices say about containment: what is in force now, and what it cost in service."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from mlrunbook.domain.containment.emergency import limits_damage
from mlrunbook.domain.containment.in_force import UNSEEN, Change, Outage, Seen, in_force, outages, over_since
from mlrunbook.domain.incident import Incident
from mlrunbook.response.run import Run
from mlrunbook.response.tried import or_none
from mlrunbook.store import journal, plans


def look(run: Run) -> Seen:
    """The model as it is now. What cannot be read is not seen: the journal alone then tells."""
    model = run.incident().model
    serving = or_none("the look at the model server", lambda: run.world.runtime.observe(model))
    orders = or_none("the list of work orders", lambda: run.world.platform.work_orders(model, state="pending"))
    return Seen(serving, None if orders is None else sum(order.flagged_for_review for order in orders))


def outages_of(conn: Connection, incident: Incident, seen: Seen = UNSEEN) -> list[Outage]:
    """Those that this incident's containment caused; they may have ended in another incident of the model."""
    ours = f"{incident.id}:"
    return [one for one in outages(_changes(conn, incident), seen) if one.change.id.startswith(ours)]


def left(conn: Connection, incident: Incident, seen: Seen = UNSEEN) -> dict[str, str]:
    """By the journal's id, a sentence about each containment that is in force now."""
    changes = _changes(conn, incident)
    return {c.id: _in_force(c) for c in changes if c.id.startswith(f"{incident.id}:") and in_force(c, changes, seen)}


def retold(conn: Connection, incident: Incident, told: Mapping[str, str]) -> dict[str, str]:
    """What was `told` when the review was written, and is not so any more: the old sentence and what to say instead."""
    changes = _changes(conn, incident)
    now = {f"outage:{one.change.id}": one.sentence for one in outages(changes)}
    for change in changes:
        since = over_since(change, changes)
        when = f" since {since:%Y-%m-%d %H:%M:%S} UTC" if since else ""
        still = in_force(change, changes)
        over = f"Containment outlived the incident and is over{when}: {change.action.summary}"
        now[f"left:{change.id}"] = _in_force(change) if still else over
    return {old: now[key] for key, old in told.items() if key in now and now[key] != old}


def _in_force(change: Change) -> str:
    why = f" ({change.why_kept})" if change.why_kept else ""
    return f"Containment {'still' if change.certain else 'may still be'} in force: {change.action.summary}{why}"


def _changes(conn: Connection, incident: Incident) -> list[Change]:
    """Every change to the model since the incident began, whichever incident made it."""
    found = []
    for row in journal.of_model(conn, incident.model, since=incident.detected_at):
        plan = plans.get(conn, row.incident_id, row.plan_digest)
        at = row.done_at or row.intended_at
        found.append(
            Change(
                row.id,
                plan.actions[row.ordinal],
                row.before or {},
                at,
                contains=limits_damage(plan, row.ordinal),
                certain=row.settled,
                undone=row.undone_by is not None,
                why_kept=row.kept_because or "",
            )
        )
    return sorted(found, key=lambda change: change.at)
