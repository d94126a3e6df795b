"""Before path A is proposed: every version answers the requests whose outcome is known, and the one that wins is the target."""

from __future__ import annotations

from mlrunbook.domain.containment.taking_back import before_containment
from mlrunbook.domain.errors import Transient
from mlrunbook.domain.evaluation.rollback_target import RollbackTargets, choose_target
from mlrunbook.domain.evaluation.version_comparison import scored_by
from mlrunbook.domain.observed import Missing, Replayed
from mlrunbook.domain.tally import as_binary
from mlrunbook.response.execution.plans import executed_containment
from mlrunbook.response.measurement import metrics
from mlrunbook.response.run import Run
from mlrunbook.response.tried import or_none, tried

NEWEST = 8  # versions that are replayed besides the one the incident is about


def choose(run: Run) -> RollbackTargets:
    """Replay and judge once; a platform that cannot replay, or does not answer, gives "not enough evidence"."""
    if standing := recorded(run):
        return standing
    decided = tried("the replay of other versions", lambda: _judged(run))
    if isinstance(decided, Missing):
        why = f"the versions could not be compared on the same requests: {decided.reason}"
        decided = RollbackTargets(None, (), why, not_enough_evidence=True, rows=0, positives=0)
    with run.write() as conn:
        run.note(conn, "diagnosis", f"Rollback targets: {decided.sentence}")
        return run.keep(conn, decided)


def recorded(run: Run) -> RollbackTargets | None:
    """What `choose` has recorded; None before that."""
    return run.recall(RollbackTargets)


def _judged(run: Run) -> RollbackTargets:
    """Asked a second time after a timeout: the platform's first replay loads libraries and models."""
    try:
        return _judge(run)
    except Transient:
        return _judge(run)


def _judge(run: Run) -> RollbackTargets:
    incident, platform, policy = run.incident(), run.world.platform, run.policy.severity.drops
    model = incident.model
    current = incident.model_version or platform.status(model).serving_version
    known = {v.version: v for v in platform.versions(model)}
    asked = [name for name in known if name != current][-NEWEST:]
    replayed = platform.replay(model, versions=[current, *asked] if current in known else asked, since=metrics.window_start(run))
    note_scored(run, replayed)
    threshold = serving_threshold(run)
    if threshold is None:
        threshold = replayed.rows[-1].threshold if replayed.rows else 0.5
    baseline = metrics.baseline(run)
    choice = choose_target(
        replayed,
        current=current,
        threshold=threshold,
        baseline_f1=as_binary(baseline).f1 if baseline else None,
        policy=policy,
        known=known,
    )
    return RollbackTargets(**vars(choice), threshold=threshold)


def note_scored(run: Run, replayed: Replayed) -> None:
    """Which artefacts were run goes on the timeline, where the replay says."""
    if said := scored_by(replayed):
        with run.write() as conn:
            run.note(conn, "diagnosis", f"Replay: {said}")


def serving_threshold(run: Run) -> float | None:
    """What the servers decide by, or did before containment raised it: a resolution puts it back. None when it cannot be read."""
    before = before_containment("threshold", executed_containment(run))
    if before is not None:
        return float(before)
    model = run.incident().model
    runtime = run.world.runtime
    seen = or_none("the serving config", lambda: runtime.observe(model).config or runtime.read_config(model))
    return seen.threshold if seen else None
