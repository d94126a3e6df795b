"""Where a run waits for a decision about its plan."""

from __future__ import annotations

from sqlalchemy import Connection

from mlrunbook.domain.approval import DECISIONS, PREFECT_FORM, Decision, FormAnswer
from mlrunbook.domain.communication.messages import line
from mlrunbook.domain.errors import Invalid, Refused
from mlrunbook.domain.records import Record
from mlrunbook.response import known_people
from mlrunbook.response.execution.approvals import decide, request
from mlrunbook.response.execution.plans import is_carried_out, plan_of
from mlrunbook.response.plan_state import is_rejected, valid_approval
from mlrunbook.response.run import Run
from mlrunbook.store import leases, plans, records

SUSPENDED_LOOK_S = 60.0  # a run that let go as "waiting" but never reached Prefect's suspended state is found after this


def approval_state(run: Run, digest: str) -> str:
    """approved, rejected, or pending. A plan that is carried out needs no further approval: what is left is to see whether it worked."""
    plan = plan_of(run, digest)
    if is_carried_out(run, plan):
        return "approved"
    with run.world.transaction() as conn:
        if is_rejected(conn, run.world.policy, plan):
            return "rejected"
        return "approved" if valid_approval(conn, run.world.policy, plan, now=run.world.now())[0] else "pending"


def wait_for_approval(run: Run, digest: str) -> int | None:
    """Ask, and let the lease go as waiting. Returns the number of this ask (for the gate's key), or None when decided meanwhile."""
    with run.write() as conn:
        plan = plans.get(conn, run.incident_id, digest)
        policy, now = run.world.policy, run.world.now()
        if valid_approval(conn, policy, plan, now=now)[0] or is_rejected(conn, policy, plan):
            return None
        request(conn, policy, plan, now=now)
        asked = len(records.with_prefix(conn, run.incident_id, Record.FORM.of(digest[:12], ""))) + 1
        leases.release(conn, run.lease, "waiting", now=now, look_again_s=SUSPENDED_LOOK_S)
        return asked


def record_form(run: Run, digest: str, number: int, answer: FormAnswer | None) -> bool:
    """What somebody typed into Prefect's form. Counts as a decision only where policy opts in; True when it did.

    None: the run went on without an answer (a retry does not stop twice at one gate); it is asked again, under the next number.
    """
    with run.world.transaction() as conn:
        now = run.world.now()
        leases.take(conn, run.incident_id, str(run.lease.holder), here=run.world.elapsed(), lease_s=run.world.lease_s)  # no longer waiting
        known = records.recall(conn, run.incident_id, FormAnswer, digest[:12], number)
        if known is not None and known.decision is not None:
            return False
        records.keep(conn, run.incident_id, answer or FormAnswer(), digest[:12], number, now=now)
        if answer is None:
            run.note(conn, "approval", "Run again without an answer to the form: waiting again")
            return False
        why_not = _decided_by_form(conn, run, digest, answer)
        if why_not is not None:
            who = line(answer.name, 100) or "somebody in Prefect"
            run.note(conn, "approval", f"Resumed by {who} without a valid approval ({why_not}): waiting again")
        return why_not is None


def _decided_by_form(conn: Connection, run: Run, digest: str, answer: FormAnswer) -> str | None:
    """Store the decision typed into the form; or why it does not count. A form is answered when it is, also long after it was shown."""
    policy, wanted = run.world.policy, plans.get(conn, run.incident_id, digest)
    if answer.decision not in DECISIONS:
        return "nothing was decided"
    if not policy.for_model(wanted.model).approvals.of(wanted.kind).accept_prefect_form:
        return "policy does not count the form"
    try:
        name = known_people.checked(conn, policy, answer.name, "name")
        # The form proves neither name nor role: policy lets the door in, and the row says so.
        said = Decision(answer.decision, name, None, PREFECT_FORM, verified=False, reason=answer.comment)
        decide(conn, policy, run.incident_id, digest, said, now=run.world.now())
    except (Refused, Invalid) as error:
        return str(error)
    return None
