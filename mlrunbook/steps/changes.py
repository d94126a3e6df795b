"""Carrying out a stored plan, action by action, through `perform`."""

from __future__ import annotations

from mlrunbook.domain.actions import Plan, PlanKind
from mlrunbook.domain.containment import Executed
from mlrunbook.perform import perform
from mlrunbook.steps.run import Run
from mlrunbook.store import journal, plans


def plan_of(run: Run, digest: str) -> Plan:
    with run.world.transaction() as conn:
        return plans.get(conn, run.incident_id, digest)


def carry_out(run: Run, digest: str, ordinal: int, undo_of: str | None = None) -> str:
    """One action of the plan; returns how it ended (done, already_held)."""
    return perform(run.world, run.lease, plan_of(run, digest), ordinal, undo_of=undo_of).state


def executed_containment(run: Run) -> list[Executed]:
    """What containment and mitigation changed and nobody has taken back yet, oldest first."""
    with run.world.transaction() as conn:
        rows = journal.of_incident(conn, run.incident_id)
        kinds = {row.plan_digest: plans.get(conn, run.incident_id, row.plan_digest) for row in rows}
    return [
        Executed(row.id, kinds[row.plan_digest].actions[row.ordinal], row.before)
        for row in rows
        if row.state == "done" and row.undone_by is None and kinds[row.plan_digest].kind in (PlanKind.CONTAINMENT, PlanKind.MITIGATION)
    ]


def is_carried_out(run: Run, plan: Plan) -> bool:
    with run.world.transaction() as conn:
        rows = [journal.find(conn, run.incident_id, plan.digest, i) for i in range(len(plan.actions))]
    return all(row is not None and row.settled for row in rows)
