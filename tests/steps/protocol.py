"""The runbook's protocol without Prefect: the same steps in the same order as `flows/incident.py`, for tests that kill it."""

from __future__ import annotations

from mlrunbook.steps import changes, closing, containment, evidence, investigation, lifecycle, resolution, triage
from mlrunbook.steps.run import Run
from mlrunbook.wiring import World


def no_sleep(_: float) -> None:
    """The clock is the test's: nobody waits."""


def carry(world: World, incident_id: str, holder: str) -> str:
    """One run: to the end, or to where a run of `respond` would stop."""
    run = lifecycle.take(world, incident_id, holder)
    if run is None:
        return "not ours"
    found = triage.triage(run, sleep=no_sleep)
    if not found["real"]:
        lifecycle.done(run)
        return "false alarm"
    evidence.preserve(run)
    contained = containment.plan(run)
    if contained.get("automatic"):
        apply(run, contained["automatic"])
    containment.announce(run)
    for name in investigation.CHECKS:
        investigation.check(run, name)
    investigation.conclude(run)
    if mitigation := containment.approved_mitigation(run):
        apply(run, mitigation)
    if not run.recorded("human_resolution"):
        digest = resolution.plan(run)
        if digest is None:
            lifecycle.stop_for_human(run, reason="no safe automatic path")
            return "waiting for a human"
        state = lifecycle.approval_state(run, digest)
        if state != "approved":
            lifecycle.wait_for_approval(run, digest)
            return state
        resolution.begin(run, digest)
        apply(run, digest)
        resolution.applied(run, digest)
    recovery = resolution.measure_recovery(run, sleep=no_sleep, patience_s=0)
    if not recovery["recovered"]:
        return "not recovered"
    undo = resolution.plan_undo(run)
    if undo["digest"]:
        apply(run, undo["digest"], undo["undoes"])
    closing.announce_resolution(run)
    closing.draft_review(run)
    lifecycle.done(run)
    return "closed"


def apply(run: Run, digest: str, undoes: list[str | None] | None = None) -> None:
    for i in range(len(changes.plan_of(run, digest).actions)):
        changes.carry_out(run, digest, i, undoes[i] if undoes else None)
