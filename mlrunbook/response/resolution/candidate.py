"""Path C before the gate: train a candidate, prove it on requests its training never saw, let it score live requests in the shadow.

Every step is repeatable and returns what stands recorded (`domain/resolution/candidate.py`), or where path C stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from mlrunbook.domain.actions import Path, Plan, PlanKind, Register, Stage
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.communication.durations import utc
from mlrunbook.domain.detection.alert_rules import spread
from mlrunbook.domain.errors import Fenced, Invalid, NotFound, Refused, Transient
from mlrunbook.domain.evaluation import version_comparison
from mlrunbook.domain.evaluation.version_comparison import TRAINING_DATA, Check, Decision, compare_shadow, scored_by, shadowed_offline
from mlrunbook.domain.investigation.diagnosis import Diagnosed
from mlrunbook.domain.observed import Missing, ModelVersion, Prediction
from mlrunbook.domain.policy.changes import BREACH_TYPES
from mlrunbook.domain.policy.connections import Shadow as ShadowBy
from mlrunbook.domain.records import Record, Recorded
from mlrunbook.domain.resolution.candidate import (
    NOT_COUNTED,
    WAITING,
    CandidatePlan,
    Outlook,
    RetrainingDecided,
    Shadow,
    Trained,
    Validation,
)
from mlrunbook.domain.resolution.request import Request
from mlrunbook.domain.resolution.retraining import TrainingWindow, check_name, check_window, next_version, training_window
from mlrunbook.domain.resolution.training_rows import judge_training_rows
from mlrunbook.response.execution.approvals import approve_by_rule
from mlrunbook.response.execution.plans import apply_action
from mlrunbook.response.investigation.investigation import reference_rows
from mlrunbook.response.investigation.rollback_target import serving_threshold
from mlrunbook.response.plan_state import is_rejected
from mlrunbook.response.run import Run
from mlrunbook.response.tried import required, tried
from mlrunbook.response.world import World
from mlrunbook.store import journal, leases, plans, records

STAGE_RULE, UNSTAGE_RULE = "retrain.stage_candidate", "retrain.unstage_refused"
REGISTER_ORDINAL, STAGE_ORDINAL = 0, 1
PAGE, PAGES = 10_000, 3  # of the prediction log; enough to find where the errors changed
SHADOW_ROWS = 5_000
TRAINING_ROWS, TRAINING_PARTS = 8_000, 8  # that are looked at, from all over the window
READ_EVERY_S = 2.0
R = TypeVar("R", bound=Recorded)


def check_request(world: World, model: str, asked: Request, *, by_run: str | None = None) -> Request:
    """What a person asks of path C, as `open_or_join` takes it; times without a zone count as UTC.

    Invalid: an empty or future window, a name that is no version, a version that exists (unless the run `by_run` began with this
    before: it may have registered the version itself).
    """
    if asked.start_date is None or asked.end_date is None:
        raise Invalid("a retraining needs the dates between which its training data lie", field="start-date")
    start, end = utc(asked.start_date), utc(asked.end_date)
    check_window(start, end, world.now())
    if asked.version:
        check_name(asked.version, "version")
        with world.transaction() as conn:
            begun = by_run is not None and records.incident_with(conn, Record.OPENED_BY.of(by_run)) is not None
        if not begun:
            next_version([v.version for v in world.platform.versions(model)], asked.version)
    return replace(asked, start_date=start, end_date=end)


def wanted(run: Run) -> RetrainingDecided | None:
    """The retraining to prepare, decided once: asked for by a person, or path C of the diagnosis. None: neither."""
    if standing := run.recall(RetrainingDecided):
        return standing
    request, diagnosis = run.recall(Request), run.recall(Diagnosed)
    if request is None and run.incident().type in BREACH_TYPES:  # nothing about the model changes by itself but its isolation
        return None
    path = request.path if request else diagnosis.path if diagnosis else None
    if path != Path.RETRAIN:
        return None
    decided = _decided(run, request, diagnosis.cause if diagnosis else None)
    with run.write() as conn:
        if standing := records.recall(conn, run.incident_id, RetrainingDecided):
            return standing
        named = f"{decided.version}, " if decided.version else ""
        run.note(conn, "candidate", f"Path C: {named}{decided.sentence}")
        if not decided.version:
            run.keep(conn, Validation(Decision.NOT_ENOUGH_EVIDENCE, decided.sentence, None))
        return run.keep(conn, decided)


def _decided(run: Run, request: Request | None, cause: Cause | None) -> RetrainingDecided:
    """Versions or a log that nobody can read are no reason to end without a plan: what is known goes to a person."""
    try:
        return required("the choice of training data", lambda: _decide(run, request, cause))
    except Invalid:
        raise
    except Refused as error:
        why = f"the training data cannot be chosen: {error}. Correct it, then start deployment `retrain`"
        return RetrainingDecided(None, why, cause=cause)


def _decide(run: Run, request: Request | None, cause: Cause | None) -> RetrainingDecided:
    now = run.world.now()
    existing = run.world.platform.versions(run.incident().model)
    window = (_window_asked(request, now) if request else None) or _window_found(run, existing, cause, now)
    if window is None:
        why = "too few failures are known to train on some and hold out others: wait for outcomes, then start deployment `retrain`"
        return RetrainingDecided(None, why, cause=cause)
    version = next_version([v.version for v in existing], request.version if request else None)
    return RetrainingDecided(version, window.sentence, window.start, window.end, cause)


def _window_asked(asked: Request, now: datetime) -> TrainingWindow | None:
    if asked.start_date is None or asked.end_date is None:
        return None
    start, end = asked.start_date, asked.end_date
    check_window(start, end, now)
    return TrainingWindow(start, end, f"train on {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, as asked for")


def _window_found(run: Run, existing: Sequence[ModelVersion], cause: Cause | None, now: datetime) -> TrainingWindow | None:
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
    if window is None or whole or window.onset or cause is Cause.CONCEPT_DRIFT:
        return window
    return TrainingWindow(earliest, window.end, window.sentence)  # what lies before the pages that were read belongs to it


def train(run: Run, log: Callable[[str], None]) -> Trained:
    """Run the training command to its end; `log` gets its lines. Fenced when another run takes over meanwhile."""
    if standing := run.recall(Trained):
        return standing
    to_train, trainer = _to_train(run), run.world.trainer
    if trainer is None:
        raise Refused("no training command can be run here: path C is not available; set MLRUNBOOK_FEATURE_REPO and policy `training`")
    version, start, end = to_train.version, to_train.start, to_train.end
    trainer.train(run.incident().model, version=version, start=start, end=end, log=log, alive=lambda: _is_alive(run))
    with run.write() as conn:
        run.note(conn, "candidate", f"Trained {version} on {start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC")
        return run.keep(conn, Trained(run.world.now(), version))


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
    validation = run.recall(Validation)
    if validation is None or validation.verdict is not Decision.PROMOTE:
        raise Refused(f"{_to_train(run).version} is not staged: validation has not passed it")
    apply_action(run, _staging_digest(run), STAGE_ORDINAL)


def _staging_digest(run: Run) -> str:
    """The plan of both, on its rule or for a person to decide: made once."""
    if standing := run.recall(CandidatePlan):
        return standing.digest
    asks = not run.acts
    model, version = run.incident().model, _to_train(run).version
    actions = (Register(model, version), Stage(model, version))
    tried_on = "is replayed on the requests logged from then on" if _is_offline(run) else "scores live requests that nobody acts on"
    why = f"{version} is retrained: it is registered, and {tried_on} once validation has passed it"
    plan = Plan(run.incident_id, PlanKind.STAGING, model, actions, (why,), path=Path.RETRAIN, rule=None if asks else STAGE_RULE)
    with run.write() as conn:
        digest = plans.propose(conn, plan, now=run.world.now())
        if not asks:
            approve_by_rule(conn, plan, now=run.world.now())
        run.keep(conn, CandidatePlan(digest))
    return digest


def staging_to_decide(run: Run) -> str | None:
    """The digest of the staging that a person decides about before anything is trained, where no rule does; None: there is none."""
    wanted_ = None if run.acts or proven(run) else wanted(run)
    if wanted_ is None or wanted_.version is None:
        return None
    return _staging_digest(run)


def validate(run: Run) -> Outlook:
    """Judge it against the version that serves, on the newest requests after its training window; recorded once decided.

    While too few failures are known it waits up to the world's `patience_s`; then it says "waiting", and after the policy's
    `shadow_give_up_min` it records "not enough evidence". A verdict on enough failures is never taken again: looking until chance says
    yes would find a yes.
    """
    if standing := run.recall(Validation):
        return standing.outlook
    to_train, policy = _to_train(run), run.policy
    model, version = run.incident().model, to_train.version
    training = _training_rows_checked(run, to_train)
    scored: list[str] = []

    def look() -> tuple[bool, Validation]:
        platform = run.world.platform
        serving = platform.status(model).serving_version
        known = {v.version: v for v in platform.versions(model)}
        replayed = platform.replay(model, versions=[serving, version], since=to_train.end)
        threshold = _threshold(run)
        scored.append(scored_by(replayed))
        verdict = version_comparison.validate(
            replayed,
            champion=_known(known, serving),
            candidate=_known(known, version),
            threshold=threshold,
            policy=policy.retraining,
            drops=policy.severity.drops,
            training=training,
        )
        too_few = verdict.verdict is Decision.NOT_ENOUGH_EVIDENCE and verdict.positives < policy.retraining.min_positives
        return not too_few, Validation(**vars(verdict), version=version, threshold=threshold, compared_with=serving)

    decided, seen = _look_until_decided(run, look, since=_trained_at(run))
    if not decided:
        return Outlook(WAITING, f"validation of {version}: {seen.sentence}", version)
    with run.write() as conn:
        if scored[-1]:
            run.note(conn, "candidate", f"Replay: {scored[-1]}")
        run.note(conn, "candidate", f"Validation: {seen.verdict.replace('_', ' ')}: {seen.sentence}")
        return run.keep(conn, seen).outlook


def _training_rows_checked(run: Run, to_train: _ToTrain) -> Check:
    """Whether the logged rows of the training window are fit to learn from; not known where they cannot be read."""
    model, log = run.incident().model, run.world.platform.prediction_log

    def read(since: datetime, until: datetime) -> Sequence[Prediction]:
        return log(model, limit=TRAINING_ROWS // TRAINING_PARTS, since=since, until=until, labelled_only=True)

    def judged() -> Check:
        reference = reference_rows(run)
        if isinstance(reference, Missing):
            return Check(TRAINING_DATA, None, f"whether the training rows are broken is not known: {reference.reason}")
        rows, version = spread(read, to_train.start, to_train.end, TRAINING_PARTS), run.incident().model_version or ""
        drops, asked = run.policy.severity.drops, run.recall(Request) is not None
        return judge_training_rows(reference, rows, version=version, end=to_train.end, drops=drops, asked=asked)

    found = tried("the look at the training rows", judged)
    if isinstance(found, Missing):
        return Check(TRAINING_DATA, None, f"whether the training rows are broken is not known: {found.reason}")
    return found


def shadow(run: Run) -> Outlook:
    """What the candidate made of live requests since it was staged. Waits up to the world's `patience_s` while that does not say."""
    if standing := run.recall(Shadow):
        return standing.outlook
    policy, model, version = run.policy, run.incident().model, _to_train(run).version
    staged_at, offline = _staged_at(run), _is_offline(run)

    def look() -> tuple[bool, Shadow]:
        rows: Sequence[Prediction] = run.world.platform.prediction_log(model, limit=SHADOW_ROWS, since=staged_at, labelled_only=True)
        if offline and sum(bool(row.outcome) for row in rows) >= policy.retraining.shadow_min_positives:
            rows, problem = shadowed_offline(run.world.platform.replay(model, versions=[version], since=staged_at), version)
            if problem:
                return True, Shadow(False, f"offline: {problem}", version, 0, 0, NOT_COUNTED, NOT_COUNTED)
        verdict = compare_shadow(rows, version, _threshold(run), policy.retraining, policy.severity.drops, offline=offline)
        return verdict.passed is not None, Shadow(**vars(verdict), version=version)

    decided, seen = _look_until_decided(run, look, since=staged_at)
    if not decided:
        return Outlook(WAITING, f"shadow of {version}: {seen.sentence}", version)
    with run.write() as conn:
        words = {True: "passed", False: "refused", None: "not enough evidence"}[seen.passed]
        run.note(conn, "candidate", f"Shadow: {words}: {seen.sentence}")
        return run.keep(conn, seen).outlook


def _is_offline(run: Run) -> bool:
    parts = run.world.policy.rules_of(run.incident().model).platform
    return parts is not None and parts.shadow is ShadowBy.OFFLINE


def proven(run: Run) -> Outlook | None:
    """The candidate that has passed the shadow; None while there is still something to do."""
    seen = run.recall(Shadow)
    return seen.outlook if seen and seen.passed is True else None


def unstage(run: Run) -> None:
    """Take a candidate that the shadow has not passed, or whose promotion was rejected, out of the slot again."""
    version, model = _to_train(run).version, run.incident().model
    rejected = _is_rejected(run)
    if not run.acts:
        with run.write() as conn:
            run.note(conn, "candidate", f"{version} stays in the shadow: a person decides every change")
        return
    if proven(run) and not rejected:
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


def _look_until_decided(run: Run, look: Callable[[], tuple[bool, R]], *, since: datetime) -> tuple[bool, R]:
    """The newest look, and whether it stands: decided, or given up waiting since `since`."""
    deadline = time.monotonic() + run.world.patience_s
    give_up_at = since + timedelta(minutes=run.world.policy.retraining.shadow_give_up_min)
    while True:
        decided, seen = required("the look at the candidate", look)
        if decided or run.world.now() >= give_up_at:
            return True, seen
        if time.monotonic() >= deadline:
            return False, seen
        run.world.sleep(READ_EVERY_S)


@dataclass(frozen=True)
class _ToTrain:
    """A retraining that is decided, and not given up for want of outcomes."""

    version: str
    start: datetime
    end: datetime


def _to_train(run: Run) -> _ToTrain:
    decided = run.recall(RetrainingDecided)
    if decided is None or decided.version is None or decided.start is None or decided.end is None:
        raise Refused("no retraining is decided for this incident; start deployment `retrain` with its dates")
    return _ToTrain(decided.version, decided.start, decided.end)


def _trained_at(run: Run) -> datetime:
    trained = run.recall(Trained)
    if trained is None:
        raise Refused(f"{_to_train(run).version} is not trained yet")
    return trained.at


def _staging_row(run: Run) -> journal.Row:
    digest = _staging_digest(run)
    with run.world.transaction() as conn:
        row = journal.find(conn, run.incident_id, digest, STAGE_ORDINAL)
    if row is None or not row.settled:
        raise Refused(f"{_to_train(run).version} is not staged yet")
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
