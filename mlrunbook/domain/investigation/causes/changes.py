"""Causes that are a change: of the decision threshold, of the model server's template, of the model."""

from __future__ import annotations

from datetime import datetime

from mlrunbook.domain.actions import Path
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.evaluation.rollback_target import Judged
from mlrunbook.domain.investigation.causes.case_file import CaseFile, Line, negated
from mlrunbook.domain.investigation.causes.definition import CauseDefinition, FollowUp, Prevention, Remedy, by_hand
from mlrunbook.domain.investigation.facts import DAY
from mlrunbook.domain.roles import Role

NOT_READABLE = "the change history cannot be read"


# --- the decision threshold


def threshold_evidence(file: CaseFile) -> list[Line]:
    change, replayed = file.facts.threshold_change, file.facts.replay_before
    changed = "no threshold change in the week before detection" if file.has_history else NOT_READABLE
    if change and change.logged:
        changed = f"{change.logged}; no change of it was reported"
    elif change:
        changed = f"{change.author} changed the threshold from {change.before:g} to {change.after:g} {file.ago(change.at)}"
    in_a_day = None if change is None else file.facts.detected_at - change.at <= DAY
    better = replayed.sentence if replayed else "the old threshold was not replayed"
    return [
        Line(0.15, True if change else None if not file.has_history else False, changed, required=True),
        Line(0.15, in_a_day, f"the change was {'within' if in_a_day else 'not within'} 24 h of detection"),
        file.degraded(0.20, required=True),
        Line(0.50, replayed.recoverable if replayed else None, better, required=True),
    ]


def threshold_remedy(file: CaseFile) -> Remedy:
    change = file.facts.threshold_change
    if change is None:
        return by_hand("find the threshold that was configured before")
    return Remedy(f"Path D: restore the threshold {change.before:g} that was configured before", Path.THRESHOLD, threshold=change.before)


def threshold_whys(file: CaseFile) -> tuple[str, ...]:
    change, replayed = file.facts.threshold_change, file.facts.replay_before
    if change is None or replayed is None:
        return (file.performance_fell,)
    return (
        file.performance_fell,
        f"Why did {file.model} do so? Because its decision threshold was {change.after:g} instead of {change.before:g}",
        f"Why is the threshold the reason? Because {replayed.sentence}",
        f"Why was it {change.after:g}? Because {change.logged or f'{change.author} set it at {change.at:%Y-%m-%d %H:%M} UTC'}",
    )


def threshold_began_at(file: CaseFile) -> datetime | None:
    return file.facts.threshold_change.at if file.facts.threshold_change else None


THRESHOLD_CHANGE = CauseDefinition(
    Cause.THRESHOLD_CHANGE,
    "the decision threshold was changed",
    threshold_evidence,
    threshold_remedy,
    threshold_whys,
    Prevention(
        (
            FollowUp("Require a second person's review for changes of the decision threshold", Role.ML_TEAM_LEAD, 14),
            FollowUp("Alert when the serving threshold differs from the released one", Role.ONCALL_ML_ENGINEER, 14),
        ),
        "The decision threshold changes behaviour as much as a new model does",
        "Treat configuration as a release",
        "Watch the share of flagged assets next to precision",
    ),
    threshold_began_at,
)


# --- a rollout of the model server


def rollout_evidence(file: CaseFile) -> list[Line]:
    rollout = file.facts.rollout
    return [Line(0.7, rollout.bad, rollout.sentence, required=True), Line(0.3, file.serving_in_trouble, file.trouble_words)]


def rollout_remedy(file: CaseFile) -> Remedy:
    rollout = file.facts.rollout
    back = rollout.target
    if back is None:
        return by_hand(f"{rollout.why}; roll out a fixed template")
    advice = f"Undo the rollout, back to revision {back.number} ({', '.join(back.images)}), {rollout.why}"
    return Remedy(advice, Path.UNDO_ROLLOUT, revision=back.number)


def rollout_whys(file: CaseFile) -> tuple[str, ...]:
    seen, because = file.facts.trouble, f"Why is the model server not well? Because {file.facts.rollout.sentence}"
    return (f"Why did requests not get their predictions? Because {seen.sentence}", because) if seen else (because,)


def rollout_began_at(file: CaseFile) -> datetime | None:
    return file.facts.rollout.suspect.at if file.facts.rollout.suspect else None


BAD_ROLLOUT = CauseDefinition(
    Cause.BAD_ROLLOUT,
    "a rollout of the model server went wrong",
    rollout_evidence,
    rollout_remedy,
    rollout_whys,
    Prevention(
        (
            FollowUp("Fix the pod template that was undone, and try it where it serves nobody", Role.ONCALL_ML_ENGINEER, 7),
            FollowUp(
                "Let a rollout of the model server stop by itself: readiness probe, maxUnavailable, progress deadline",
                Role.ML_TEAM_LEAD,
                14,
            ),
        ),
        "The server's pod template is a release too",
        "Infrastructure changes need the model owner's eye",
        "Alert when a rollout makes no progress, before the old pods are gone",
    ),
    rollout_began_at,
)


# --- a release of the model


def release_evidence(file: CaseFile) -> list[Line]:
    return _cannot_be_loaded(file) if file.facts.not_loaded else _serves_and_is_wrong(file)


def _cannot_be_loaded(file: CaseFile) -> list[Line]:
    facts = file.facts
    return [
        Line(0.7, True, f"the model server cannot load {facts.suspect_version}: {facts.not_loaded}"),
        Line(0.2, _was_deployed(file), _deployed_words(file)),
        Line(0.1, file.server_healthy, f"{facts.model_version} goes on serving" if file.server_healthy else "nothing serves"),
    ]


def _serves_and_is_wrong(file: CaseFile) -> list[Line]:
    facts, last = file.facts, file.facts.deployment
    in_a_day = None if not file.has_history else last is not None and facts.detected_at - last.at <= DAY
    # A recent threshold change that replays well explains the drop without the deployment.
    before = facts.replay_before
    unexplained = True if facts.threshold_change is None else negated(before.recoverable if before else None)
    served = facts.metrics.current.versions if facts.metrics else ()
    version = last.ref if last else None
    return [
        Line(0.10, _was_deployed(file), _deployed_words(file), required=True),
        Line(0.20, in_a_day, "it was within 24 h of detection" if in_a_day else "it was not within 24 h of detection"),
        file.degraded(0.25, required=True),
        Line(0.0, unexplained, "no threshold change explains it" if unexplained else "a threshold change may explain it", required=True),
        file.unhelped_by_a_threshold(0.20),
        file.sound_inputs(0.15),
        Line(0.10, version in served if served and version else None, f"predictions come from {', '.join(served) or 'unknown versions'}"),
    ]


def _was_deployed(file: CaseFile) -> bool | None:
    return None if not file.has_history else file.facts.deployment is not None


def _deployed_words(file: CaseFile) -> str:
    last = file.facts.deployment
    if last is None:
        return "no deployment in the week before detection" if file.has_history else NOT_READABLE
    return f"{last.kind} of {last.ref} by {last.author} {file.ago(last.at)}"


def release_remedy(file: CaseFile) -> Remedy:
    if file.facts.not_loaded:
        return _to_what_loads(file)
    return _to_what_serves_already(file) or _to_what_won_the_replay(file) or _to_what_served_before(file)


def _to_what_loads(file: CaseFile) -> Remedy:
    """Back to the version that really serves, so that the next start of a server finds it; where none does, to the one before."""
    status = file.facts.status
    keep = (status.server_version or status.previous_version) if status else None
    if status is None or keep in (None, status.serving_version):
        return by_hand("no version is known that loads; deploy a fixed one")
    which = "which serves now" if status.server_version else "which served before"
    return Remedy(f"Path A: roll back to {keep}, {which}", Path.ROLLBACK, keep)


def _to_what_serves_already(file: CaseFile) -> Remedy | None:
    """A temporary rollback has been made: stay there, unless it is no better."""
    facts, status, targets = file.facts, file.facts.status, file.facts.targets
    if status is None or not facts.model_version or status.serving_version == facts.model_version:
        return None
    kept = status.serving_version
    if _is_refused(file, kept) or not (targets is None or targets.not_enough_evidence or targets.target == kept):
        return None
    doubt = f" ({targets.sentence})" if targets and targets.target != kept else ""
    return Remedy(f"Path A: roll back to {kept}, which serves already{doubt}", Path.ROLLBACK, kept)


def _to_what_won_the_replay(file: CaseFile) -> Remedy | None:
    """None: there is not enough evidence."""
    targets = file.facts.targets
    if targets is None or targets.not_enough_evidence:
        return None
    if targets.target:
        return Remedy(f"Path A: roll back to {targets.target}: {targets.sentence}", Path.ROLLBACK, targets.target)
    tried = " or ".join(v.version for v in targets.ranking)
    why = f"replayed on {targets.rows} requests, {tried} would not do better" if targets.ranking else "there is no other version"
    return by_hand(f"{why}; deploy a fixed version")


def _to_what_served_before(file: CaseFile) -> Remedy:
    """It is not known to do better, and the advice says so."""
    facts, targets = file.facts, file.facts.targets
    previous = facts.status.previous_version if facts.status else None
    if targets and _is_refused(file, previous):
        return by_hand(f"{previous} would not do better ({targets.sentence}); deploy a fixed version")
    if not previous or previous == facts.model_version:
        return by_hand("there is no previous version to go back to; deploy a fixed one")
    doubt = f" ({targets.sentence})" if targets else ""
    return Remedy(f"Path A: roll back to {previous}{doubt}", Path.ROLLBACK, previous)


def _is_refused(file: CaseFile, version: str | None) -> bool:
    targets = file.facts.targets
    return targets is not None and any(v.version == version and v.judged is Judged.REFUSED for v in targets.ranking)


def release_whys(file: CaseFile) -> tuple[str, ...]:
    facts, last, best = file.facts, file.facts.deployment, file.facts.replay_best
    if facts.not_loaded:
        chain = [f"Why does {facts.suspect_version} not serve? Because {facts.not_loaded}"]
        chain += [f"Why should it? Because {last.author} released it at {last.at:%Y-%m-%d %H:%M} UTC"] if last else []
        return tuple(chain)
    chain = [file.performance_fell]
    if last:
        chain.append(f"Why did {file.model} answer? Because {last.author} made it serve at {last.at:%Y-%m-%d %H:%M} UTC")
    if best and best.recoverable is False:
        chain.append(f"Why is the model itself the reason? Because even {best.sentence}")
    return tuple(chain)


def release_began_at(file: CaseFile) -> datetime | None:
    return file.facts.deployment.at if file.facts.deployment else None


BAD_DEPLOYMENT = CauseDefinition(
    Cause.BAD_DEPLOYMENT,
    "{version} is a bad release",
    release_evidence,
    release_remedy,
    release_whys,
    Prevention(
        (
            FollowUp("Compare a candidate with the serving version on labelled outcomes before promoting it", Role.ML_TEAM_LEAD, 14),
            FollowUp("Find out why validation passed the faulty version, and fix its training data or code", Role.ML_TEAM_LEAD, 7),
        ),
        "A version can pass its own validation and still fail in production",
        "Promotion needs a check against the serving version",
        "Watch a new version on fresh labelled outcomes from its first hour",
    ),
    release_began_at,
)
