"""The runbook's protocol without Prefect: the same steps in the same order as `flows/`, for tests that walk it or kill it."""

from __future__ import annotations

from typing import Any

from mlrunbook.domain.errors import Fenced, Transient
from mlrunbook.response.containment import breach, containment, emergency, evidence
from mlrunbook.response.detection import triage
from mlrunbook.response.execution import approval_gate, plans
from mlrunbook.response.investigation import investigation, rollback_target
from mlrunbook.response.lifecycle import runs
from mlrunbook.response.resolution import candidate, promotion, resolution
from mlrunbook.response.review import closing
from mlrunbook.response.run import Run
from mlrunbook.response.world import World


def carry(world: World, incident_id: str, holder: str) -> str:
    """One run: to the end, or to where a run of `respond` would stop. An error is handled as `tasks.run.carrying` does."""
    run = runs.take(world, incident_id, holder)
    if run is None:
        return "not ours"
    try:
        return follow(run)
    except Fenced:
        raise
    except Exception as error:
        runs.failed(run, error)
        raise


def follow(run: Run) -> str:
    for digest in emergency.to_carry_out(run):
        evidence.preserve(run)
        for i in range(len(plans.plan_of(run, digest).actions)):
            try:
                emergency.carry_out(run, digest, i)
            except Transient as error:
                emergency.postpone(run, digest, i, str(error))
        emergency.announce(run, digest)
    found = triage.triage(run)
    if not found.real:
        runs.done(run)
        return "false alarm"
    step_2(run)
    rollback_target.choose(run)
    for name in investigation.CHECKS:
        investigation.check(run, name)
    investigation.conclude(run)
    if triage.reassess_after_investigation(run):
        step_2(run)
    if mitigation := containment.approved_mitigation(run):
        contain(run, mitigation)
    if (released := release(run)) is None:
        return "pending"
    if not run.recorded("human_resolution"):
        if prepare_candidate(run)["verdict"] == "waiting":
            runs.look_again_later(run, reason="the candidate is in the shadow", after_s=60.0)
            return "waiting for the shadow"
        digest = resolution.plan(run)
        if digest is None:
            runs.stop_for_human(run, reason=resolution.why_no_plan(run))
            return "waiting for a human"
        state = approval_gate.approval_state(run, digest)
        if state == "pending":
            approval_gate.wait_for_approval(run, digest)
            return state
        if state == "rejected":
            candidate.unstage_rejected(run)
            runs.stop_for_human(run, reason="the plan was rejected: fix it by hand, or start a path deployment")
            return state
        resolution.begin(run, digest)
        apply(run, digest)
        resolution.applied(run, digest)
    if not released and not (again := release(run)):
        if again is None:
            return "pending"
        runs.stop_for_human(run, reason="the model server stays isolated: take a path, or hand over and close with a reason")
        return "still isolated"
    recovery = resolution.measure_recovery(run)
    if recovery["recovered"] is None and not recovery.get("give_up"):
        runs.look_again_later(run, reason=recovery["sentence"], after_s=recovery.get("look_again_s", 60.0))
        return "too early to say"
    if not recovery["recovered"]:
        promotion.return_to_previous(run)
        resolution.reopen(run)
        runs.stop_for_human(run, reason=f"the fix did not work: {recovery['sentence']}")
        return "not recovered"
    if why := runs.held(run):
        runs.stop_for_human(run, reason=f"recovered, but {why}")
        return "held"
    undo = resolution.plan_undo(run)
    if undo["digest"]:
        contain(run, undo["digest"], undo["undoes"])
    closing.announce_resolution(run)
    closing.draft_review(run)
    runs.done(run)
    return "closed"


def step_2(run: Run) -> None:
    breach.alarm(run)
    if run.recorded("contained"):
        return
    evidence.preserve(run)
    contained = containment.plan(run)
    if contained.get("automatic"):
        contain(run, contained["automatic"])
    containment.announce(run)


def release(run: Run) -> bool | None:
    """As `flows.incident.release`; None: it waits for the decision."""
    digest = breach.plan_release(run)
    if digest is None:
        return True
    state = approval_gate.approval_state(run, digest)
    if state == "pending":
        approval_gate.wait_for_approval(run, digest)
        return None
    if state == "approved":
        breach.lift(run, digest)
    return state == "approved"


def prepare_candidate(run: Run) -> dict[str, Any]:
    """As flows/candidate.py."""
    if proven := candidate.proven(run):
        return proven
    wanted = candidate.wanted(run)
    if wanted is None or wanted["version"] is None:
        return candidate.outlook(None if wanted is None else "not_enough_evidence", "", None)
    candidate.train(run, lambda _: None)
    candidate.register(run)
    validation = candidate.validate(run)
    if validation["verdict"] != "promote":
        return validation
    candidate.stage(run)
    seen = candidate.shadow(run)
    if seen["verdict"] in ("do_not_promote", "not_enough_evidence"):
        candidate.unstage(run)
    return seen


def apply(run: Run, digest: str) -> None:
    for i in range(len(plans.plan_of(run, digest).actions)):
        plans.apply_action(run, digest, i)


def contain(run: Run, digest: str, undoes: list[str | None] | None = None) -> None:
    for i in range(len(plans.plan_of(run, digest).actions)):
        plans.apply_or_page(run, digest, i, undoes[i] if undoes else None)
