"""Path C before the gate: train a candidate, prove it on requests its training never saw, let it score live requests in the shadow.

Every step is repeatable and returns what stands recorded. The records, in their order:

"retrain"         {"version", "start", "end" (ISO 8601), "cause", "sentence"}; version None: the known outcomes do not suffice
"trained"         {"at", "version"}
"candidate_plan"  {"digest"} of the one automatic plan (Register, Stage) on rule `retrain.stage_candidate`
"validation"      {"version", "verdict": promote | do_not_promote | not_enough_evidence, "sentence", "threshold", "rows", "positives",
                   "checks": [{"name", "passed": bool | None, "sentence", "value"}], "champion", "candidate": {"tp", "fp", "fn", "tn"},
                   "compared_with": the champion's version}
"shadow"          {"version", "passed": True | False | None (gave up waiting), "sentence", "rows", "positives", "champion", "candidate"}

What a step returns besides a record is an `Outlook`: where path C stands, in the words of `flows/candidate.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from mlrunbook.domain.actions import Path, Plan, PlanKind, Register, Stage
from mlrunbook.domain.communication.durations import utc
from mlrunbook.domain.errors import Fenced, NotFound, Refused, Transient
from mlrunbook.domain.evaluation import version_comparison
from mlrunbook.domain.evaluation.version_comparison import Decision, compare_shadow
from mlrunbook.domain.investigation.diagnosis import Diagnosed
from mlrunbook.domain.observed import ModelVersion, Prediction
from mlrunbook.domain.policy.changes import BREACH_TYPES
from mlrunbook.domain.records import Record
from mlrunbook.domain.resolution.retraining import TrainingWindow, check_name, check_window, next_version, training_window
from mlrunbook.response.execution.approvals import approve_by_rule
from mlrunbook.response.execution.plans import apply_action
from mlrunbook.response.investigation.rollback_target import serving_threshold
from mlrunbook.response.plan_state import is_rejected
from mlrunbook.response.run import Run
from mlrunbook.response.world import World
from mlrunbook.store import journal, leases, plans, records

STAGE_RULE, UNSTAGE_RULE = "retrain.stage_candidate", "retrain.unstage_refused"
REGISTER_ORDINAL, STAGE_ORDINAL = 0, 1
PAGE, PAGES = 10_000, 3  # of the prediction log; enough to find where the errors changed
SHADOW_ROWS = 5_000
READ_EVERY_S = 2.0
WAITING = "waiting"
Outlook = dict[str, Any]  # {"verdict": promote | do_not_promote | not_enough_evidence | waiting | None (not path C), "sentence", "version"}


def outlook(verdict: str | None, sentence: str, version: str | None) -> Outlook:
    return {"verdict": verdict, "sentence": sentence, "version": version}


def check_request(
    world: World, model: str, start: datetime, end: datetime, version: str, *, reason: str, by: str, by_run: str | None = None
) -> dict[str, Any]:
    """What a person asks of path C, as `open_or_join` takes it; times without a zone count as UTC, an empty version is the next minor.

    Invalid: an empty or future window, a name that is no version, a version that exists (unless the run `by_run` began with this
    before: it may have registered the version itself).
    """
    start, end = utc(start), utc(end)
    check_window(start, end, world.now())
    if version:
        check_name(version, "version")
        with world.transaction() as conn:
            begun = by_run is not None and records.incident_with(conn, Record.OPENED_BY.of(by_run)) is not None
        if not begun:
            next_version([v.version for v in world.platform.versions(model)], version)
    asked = {"path": str(Path.RETRAIN), "start_date": start.isoformat(), "end_date": end.isoformat(), "reason": reason, "by": by}
    return asked | ({"version": version} if version else {})


def wanted(run: Run) -> dict[str, Any] | None:
    """The retraining to prepare, decided once: asked for by a person, or path C of the diagnosis. None: neither."""
    if standing := run.recorded("retrain"):
        return standing
    request, diagnosis = run.recorded("request"), run.recall(Diagnosed)
    if request is None and run.incident().type in BREACH_TYPES:  # nothing about the model changes by itself but its isolation
        return None
    path = request.get("path") if request else diagnosis.path if diagnosis else None
    if path != Path.RETRAIN:
        return None
    asked = request or {}
    cause = diagnosis.cause if diagnosis else None
    platform, model, now = run.world.platform, run.incident().model, run.world.now()
    existing = platform.versions(model)
    window = _window_asked(asked, now) or _window_found(run, existing, cause, now)
    if window is None:
        why = "too few failures are known to train on some and hold out others: wait for outcomes, then start deployment `retrain`"
        decided: dict[str, Any] = {"version": None, "start": None, "end": None, "cause": cause, "sentence": why}
    else:
        version = next_version([v.version for v in existing], asked.get("version"))
        decided = {"version": version, "start": window.start, "end": window.end, "cause": cause, "sentence": window.sentence}
    with run.write() as conn:
        if standing := records.get(conn, run.incident_id, "retrain"):
            return standing
        named = f"{decided['version']}, " if decided["version"] else ""
        run.note(conn, "candidate", f"Path C: {named}{decided['sentence']}")
        if not decided["version"]:
            run.record(conn, "validation", {"verdict": Decision.NOT_ENOUGH_EVIDENCE, **decided})
        return run.record(conn, "retrain", decided)


def _window_asked(asked: dict[str, Any], now: datetime) -> TrainingWindow | None:
    if not asked.get("start_date"):
        return None
    start, end = datetime.fromisoformat(asked["start_date"]), datetime.fromisoformat(asked["end_date"])
    check_window(start, end, now)
    return TrainingWindow(start, end, f"train on {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, as asked for")


def _window_found(run: Run, existing: Sequence[ModelVersion], cause: str | None, now: datetime) -> TrainingWindow | None:
    incident, policy = run.incident(), run.world.policy.retraining
    earliest = now - timedelta(days=policy.look_back_days)
    rows: list[Prediction] = []
    whole = False
    while not whole and len(rows) < PAGE * PAGES:
        until = min(p.at for p in rows) if rows else None
        page = run.world.platform.prediction_log(incident.model, limit=PAGE, since=earliest, until=until, labelled_only=True)
        rows += page
        whole = len(page) < PAGE
    types = next((v.asset_types for v in existing if v.version == incident.model_version), None)
    window = training_window(rows, now, policy, cause=cause, known_types=types)
    if window and not whole and not window.onset and cause != "concept_drift":  # what lies before the pages that were read belongs to it
        return TrainingWindow(earliest, window.end, window.sentence)
    return window


def train(run: Run, log: Callable[[str], None]) -> dict[str, Any]:
    """Run the training command to its end; `log` gets its lines. Fenced when another run takes over meanwhile."""
    if standing := run.recorded("trained"):
        return standing
    asked, trainer = _decided(run), run.world.trainer
    if trainer is None:
        raise Refused("no training command can be run here: path C is not available; set MLRUNBOOK_FEATURE_REPO and policy `training`")
    start, end = datetime.fromisoformat(asked["start"]), datetime.fromisoformat(asked["end"])
    trainer.train(run.incident().model, version=asked["version"], start=start, end=end, log=log, alive=lambda: _is_alive(run))
    with run.write() as conn:
        run.note(conn, "candidate", f"Trained {asked['version']} on {start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC")
        return run.record(conn, "trained", {"at": run.world.now(), "version": asked["version"]})


def _is_alive(run: Run) -> bool:
    try:
        with run.world.transaction() as conn:
            leases.check(conn, run.lease)
    except Fenced:
        return False
    except Exception:  # the store is away for a moment: no reason to throw a training away
        return True
    return True


def register(run: Run) -> None:
    """Enter the trained version into the registry. Nothing serves it."""
    apply_action(run, _staging_digest(run), REGISTER_ORDINAL)


def stage(run: Run) -> None:
    """Into the shadow. Refused for a candidate that validation has not passed."""
    validation = run.recorded("validation") or {}
    if validation.get("verdict") != Decision.PROMOTE:
        raise Refused(f"{_decided(run)['version']} is not staged: validation has not passed it")
    apply_action(run, _staging_digest(run), STAGE_ORDINAL)


def _staging_digest(run: Run) -> str:
    """The plan of both, on its rule: made once."""
    if standing := run.recorded("candidate_plan"):
        return str(standing["digest"])
    model, version = run.incident().model, _decided(run)["version"]
    actions = (Register(model, version), Stage(model, version))
    why = f"{version} is retrained: it is registered, and scores live requests that nobody acts on once validation has passed it"
    plan = Plan(run.incident_id, PlanKind.STAGING, model, actions, (why,), path=Path.RETRAIN, rule=STAGE_RULE)
    with run.write() as conn:
        digest = plans.propose(conn, plan, now=run.world.now())
        approve_by_rule(conn, plan, now=run.world.now())
        run.record(conn, "candidate_plan", {"digest": digest})
    return digest


def validate(run: Run) -> dict[str, Any]:
    """Judge it against the version that serves, on the newest requests after its training window; recorded once decided.

    While too few failures are known it waits up to the world's `patience_s`; then returns {"verdict": "waiting", "sentence", "version"},
    and after the policy's `shadow_give_up_min` records "not enough evidence". A verdict on enough failures is never taken again: looking
    until chance says yes would find a yes.
    """
    if standing := run.recorded("validation"):
        return standing
    asked, policy = _decided(run), run.world.policy
    model, version = run.incident().model, asked["version"]

    def look() -> tuple[bool, dict[str, Any]]:
        platform = run.world.platform
        serving = platform.status(model).serving_version
        known = {v.version: v for v in platform.versions(model)}
        replayed = platform.replay(model, versions=[serving, version], since=datetime.fromisoformat(asked["end"]))
        threshold = _threshold(run)
        verdict = version_comparison.validate(
            replayed,
            champion=_known(known, serving),
            candidate=_known(known, version),
            threshold=threshold,
            policy=policy.retraining,
            drops=policy.severity.drops,
        )
        too_few = verdict.verdict is Decision.NOT_ENOUGH_EVIDENCE and verdict.positives < policy.retraining.min_positives
        return not too_few, asdict(verdict) | {"version": version, "threshold": threshold, "compared_with": serving}

    decided, seen = _look_until_decided(run, look, since=_trained_at(run))
    if not decided:
        return outlook(WAITING, f"validation of {version}: {seen['sentence']}", version)
    with run.write() as conn:
        run.note(conn, "candidate", f"Validation: {seen['verdict'].replace('_', ' ')}: {seen['sentence']}")
        return run.record(conn, "validation", seen)


def shadow(run: Run) -> Outlook:
    """What the candidate made of live requests since it was staged. Waits up to the world's `patience_s` while that does not say."""
    asked, policy = _decided(run), run.world.policy
    model, version = run.incident().model, asked["version"]
    if standing := run.recorded("shadow"):
        return _shadow_outlook(standing)
    staged_at = _staged_at(run)

    def look() -> tuple[bool, dict[str, Any]]:
        rows = run.world.platform.prediction_log(model, limit=SHADOW_ROWS, since=staged_at, labelled_only=True)
        verdict = compare_shadow(rows, version, _threshold(run), policy.retraining, policy.severity.drops)
        return verdict.passed is not None, asdict(verdict) | {"version": version}

    decided, seen = _look_until_decided(run, look, since=staged_at)
    if not decided:
        return outlook(WAITING, f"shadow of {version}: {seen['sentence']}", version)
    with run.write() as conn:
        words = {True: "passed", False: "refused", None: "not enough evidence"}[seen["passed"]]
        run.note(conn, "candidate", f"Shadow: {words}: {seen['sentence']}")
        return _shadow_outlook(run.record(conn, "shadow", seen))


def proven(run: Run) -> Outlook | None:
    """The candidate that has passed the shadow; None while there is still something to do."""
    recorded = run.recorded("shadow")
    return _shadow_outlook(recorded) if recorded and recorded["passed"] is True else None


def unstage(run: Run) -> None:
    """Take a candidate that the shadow has not passed, or whose promotion was rejected, out of the slot again."""
    version, model = _decided(run)["version"], run.incident().model
    rejected = _is_rejected(run)
    if (run.recorded("shadow") or {}).get("passed") is True and not rejected:
        raise Refused(f"{version} has passed the shadow: it stays staged until it is promoted or rejected")
    why = f"the promotion of {version} was rejected" if rejected else f"the shadow has not passed {version}"
    why += ": it scores live requests no longer"
    plan = Plan(run.incident_id, PlanKind.UNDO, model, (Stage(model, None),), (why,), path=Path.RETRAIN, rule=UNSTAGE_RULE)
    with run.write() as conn:
        if (row := journal.find(conn, run.incident_id, plan.digest, 0)) and row.settled:
            return
        plans.propose(conn, plan, now=run.world.now())
        approve_by_rule(conn, plan, now=run.world.now())
    apply_action(run, plan.digest, 0, undo_of=_staging_row(run).id)


def unstage_rejected(run: Run) -> None:
    """Nobody wants the candidate that was proven: it leaves the slot. Does nothing where no candidate is staged."""
    if proven(run) is not None and _is_rejected(run):
        unstage(run)


def _is_rejected(run: Run) -> bool:
    with run.world.transaction() as conn:
        asked = plans.current(conn, run.incident_id, PlanKind.RESOLUTION)
        return asked is not None and asked.path is Path.RETRAIN and is_rejected(conn, run.world.policy, asked)


def _shadow_outlook(recorded: dict[str, Any]) -> Outlook:
    verdict = {True: Decision.PROMOTE, False: Decision.DO_NOT_PROMOTE, None: Decision.NOT_ENOUGH_EVIDENCE}[recorded["passed"]]
    return outlook(verdict, recorded["sentence"], recorded["version"])


def _look_until_decided(
    run: Run,
    look: Callable[[], tuple[bool, dict[str, Any]]],
    *,
    since: datetime,
) -> tuple[bool, dict[str, Any]]:
    """The newest look, and whether it stands: decided, or given up waiting since `since`."""
    deadline = time.monotonic() + run.world.patience_s
    give_up_at = since + timedelta(minutes=run.world.policy.retraining.shadow_give_up_min)
    while True:
        decided, seen = look()
        if decided or run.world.now() >= give_up_at:
            return True, seen
        if time.monotonic() >= deadline:
            return False, seen
        run.world.sleep(READ_EVERY_S)


def _decided(run: Run) -> dict[str, Any]:
    decided = run.recorded("retrain") or {}
    if not decided.get("version"):
        raise Refused("no retraining is decided for this incident; start deployment `retrain` with its dates")
    return decided


def _trained_at(run: Run) -> datetime:
    return datetime.fromisoformat((run.recorded("trained") or {})["at"])


def _staging_row(run: Run) -> journal.Row:
    with run.world.transaction() as conn:
        row = journal.find(conn, run.incident_id, _staging_digest(run), STAGE_ORDINAL)
    if row is None or not row.settled:
        raise Refused(f"{_decided(run)['version']} is not staged yet")
    return row


def _staged_at(run: Run) -> datetime:
    row = _staging_row(run)
    return row.done_at or row.intended_at


def _known(known: dict[str, ModelVersion], version: str) -> ModelVersion:
    if version not in known:
        raise NotFound(f"the platform does not list {version} among its versions: register it")
    return known[version]


def _threshold(run: Run) -> float:
    """What the servers decided by before containment raised it: the promotion puts it back."""
    threshold = serving_threshold(run)
    if threshold is None:
        raise Transient(f"the threshold of {run.incident().model} cannot be read, so nothing can be compared at it")
    return threshold
