"""Carrying out a stored plan, action by action, through `execute`."""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection

from mlrunbook.domain.action_state import ActionState
from mlrunbook.domain.actions import Action, Isolate, Plan, PlanKind
from mlrunbook.domain.containment.breach import IsolationWaits
from mlrunbook.domain.containment.emergency import limits_damage
from mlrunbook.domain.containment.orders import WHAT_ANSWERS, Failed, thing_of
from mlrunbook.domain.containment.taking_back import Executed
from mlrunbook.domain.errors import Fenced, Overtaken, Refused, Transient, Unknown
from mlrunbook.domain.incident import Incident
from mlrunbook.domain.records import Record
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication.notifications import Page, page
from mlrunbook.response.execution.execute import execute
from mlrunbook.response.run import Run
from mlrunbook.store import incidents, journal, plans


def plan_of(run: Run, digest: str) -> Plan:
    with run.world.transaction() as conn:
        return plans.get(conn, run.incident_id, digest)


def apply_action(run: Run, digest: str, ordinal: int, undo_of: str | None = None) -> str:
    """One action of the plan; returns how it ended (done, already_held)."""
    return execute(run.world, run.lease, plan_of(run, digest), ordinal, undo_of=undo_of).state


def apply_or_page(run: Run, digest: str, ordinal: int, undo_of: str | None = None) -> str:
    """As `apply_action`, for containment and its undo: one step that cannot be done must not keep the rest of the runbook from running.

    It is said once on the timeline and on a page, and it is never tried again by itself: returns "failed". What stays in force is kept with
    that reason; but serving that may be stopped or routed is never explained by a failure: the incident stays open until people decide.
    """
    if run.recall(Failed, digest[:12], ordinal):
        return "failed"
    try:
        return apply_action(run, digest, ordinal, undo_of)
    except Fenced:
        raise
    except Transient as error:
        _say_that_isolation_waits(run, digest, ordinal, error)
        raise
    except (Refused, Unknown) as error:  # NotApproved too: somebody rejected an automatic plan
        plan = plan_of(run, digest)
        what = plan.actions[ordinal].summary
        why = f"a step of the {plan.kind} could not be done, do it by hand or leave it: {what}: {error}"
        with run.write() as conn:
            run.keep(conn, Failed(str(error)), digest[:12], ordinal)
            run.note(conn, "action", why[:1].upper() + why[1:])
            row = journal.find(conn, run.incident_id, digest, ordinal)
            if isinstance(error, Overtaken) or thing_of(plan.actions[ordinal]) not in WHAT_ANSWERS:
                for action_id in filter(None, (row.id if row else None, undo_of)):
                    journal.set_kept(conn, action_id, f"{what} could not be done ({error}); on-call was paged")
            incident = incidents.get(conn, run.incident_id)
            _page_about(run, conn, incident, plan.actions[ordinal], why, key=Record.FAILED.of(digest[:12], ordinal))
        return "failed"


def _say_that_isolation_waits(run: Run, digest: str, ordinal: int, error: Transient) -> None:
    """A breach goes on while the runtime does not answer: people hear of it now, and it is tried again."""
    action = plan_of(run, digest).actions[ordinal]
    if not isinstance(action, Isolate) or run.recall(IsolationWaits, digest[:12], ordinal):
        return
    why = f"not done yet, it is tried again until it is: {action.summary}: {error}"
    with run.write() as conn:
        run.keep(conn, IsolationWaits(str(error)), digest[:12], ordinal)
        run.note(conn, "action", why[:1].upper() + why[1:])
        key = Record.ISOLATION_WAITS.of(digest[:12], ordinal)
        _page_about(run, conn, incidents.get(conn, run.incident_id), action, why, key=key)


def report_left_out(run: Run, conn: Connection, action: Action, why: str) -> None:
    """A dry run of this step was refused: it is not tried, the others are, and people hear of it."""
    said = f"a step was left out, do it by hand or leave it: {action.summary}: a dry run of it was refused: {why}"
    run.note(conn, "action", said[:1].upper() + said[1:])
    key = Record.FAILED.of("left-out", hashlib.sha256(action.summary.encode()).hexdigest()[:12])
    _page_about(run, conn, incidents.get(conn, run.incident_id), action, said, key=key)


def _page_about(run: Run, conn: Connection, incident: Incident, action: Action, why: str, *, key: str) -> None:
    """The engineer on call; of an isolation the security officer too."""
    page(conn, run.world.policy, incident, Page(Role.ONCALL_ML_ENGINEER, why, key), now=run.world.now())
    if isinstance(action, Isolate):
        page(conn, run.world.policy, incident, Page(Role.SECURITY_OFFICER, why, f"{key}:security"), now=run.world.now())


def executed_containment(run: Run) -> list[Executed]:
    """What containment and mitigation changed, or may have, and nobody has taken back yet, oldest first."""
    with run.world.transaction() as conn:
        return executed_of(conn, run.incident_id)


def executed_of(conn: Connection, incident_id: str) -> list[Executed]:
    """What was, or may have been, changed: also what was ordered and was so already, and what nobody could read back."""
    rows = [r for r in journal.of_incident(conn, incident_id) if r.undone_by is None]
    kinds = {row.plan_digest: plans.get(conn, incident_id, row.plan_digest) for row in rows}
    return [
        Executed(row.id, kinds[row.plan_digest].actions[row.ordinal], row.before)
        for row in rows
        if limits_damage(kinds[row.plan_digest], row.ordinal) and _is_in_force(row, kinds[row.plan_digest])
    ]


def _is_in_force(row: journal.Row, plan: Plan) -> bool:
    """It is, or may be: a server that was stopped by a change whose end nobody saw is stopped all the same."""
    if row.state == ActionState.ALREADY_HELD:
        return plan.kind is PlanKind.EMERGENCY
    return row.may_have_happened


def is_carried_out(run: Run, plan: Plan) -> bool:
    with run.world.transaction() as conn:
        rows = [journal.find(conn, run.incident_id, plan.digest, i) for i in range(len(plan.actions))]
    return all(row is not None and row.settled for row in rows)
