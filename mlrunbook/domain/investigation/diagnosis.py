"""What probably caused the incident, and which path of Step 4 answers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from mlrunbook.domain.actions import Path
from mlrunbook.domain.cause import HEADLINES, Cause
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.evaluation.version_comparison import Judged
from mlrunbook.domain.investigation.causes import DISTRIBUTIONS, Line, evidence
from mlrunbook.domain.investigation.facts import DiagnosisFacts
from mlrunbook.domain.investigation.feature_store import FeatureVerdict
from mlrunbook.domain.investigation.findings import CHECKLIST, Finding, State
from mlrunbook.domain.investigation.serving_health import answer
from mlrunbook.domain.investigation.upstream import Upstream, judge_upstream, moved_features

BAR = 0.5  # below this a cause is a lead for a person, not a diagnosis


@dataclass(frozen=True)
class ScoredCause:
    """`supports` and `against` are the sentences behind the score; `open` what could not be checked."""

    cause: Cause
    score: float
    supports: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    open: tuple[str, ...] = ()

    @property
    def explained(self) -> str:
        """The score with everything it rests on, for people."""
        parts = {"for": self.supports, "against": self.against, "not known": self.open}
        said = [f"{word}: {'; '.join(lines)}" for word, lines in parts.items() if lines]
        return f"{self.cause.replace('_', ' ')} {self.score:.2f} ({'. '.join(said)})"


@dataclass(frozen=True)
class Repair:
    """Path B: which feature views to materialise, from when on (ISO 8601; None: incremental), and which schedules to resume.

    `until` and `as_of` as in `actions.Materialize`.
    """

    views: tuple[str, ...]
    since: str | None = None
    resume: tuple[str, ...] = ()
    until: str | None = None
    as_of: str | None = None


SUSPECTS_SHOWN, SUSPECT_CHARS = 3, 110  # a page holds no more


@dataclass(frozen=True)
class Diagnosis:
    """`path` None: no safe automatic path; `sentence` then says what a person should look at. `chain` seeds the 5 whys.

    `headline` is the short form for pages and notices; `began_at` when the cause set in, where a change is the cause.
    """

    causes: tuple[ScoredCause, ...]
    path: Path | None
    chain: tuple[str, ...]
    sentence: str
    headline: str
    began_at: datetime | None = None
    target_version: str | None = None
    target_threshold: float | None = None
    target_revision: int | None = None  # of the rollout history
    repair: Repair | None = None
    advice: str = ""  # the end of `sentence`: what follows from it
    objection: str | None = None  # what speaks against a target that a person has asked for: whoever decides reads it first

    @property
    def top(self) -> ScoredCause:
        return self.causes[0]

    @property
    def leads(self) -> tuple[ScoredCause, ...]:
        """The three best causes that are not ruled out."""
        return tuple(c for c in self.causes if c.score > 0)[:3]


def diagnose(findings: Sequence[Finding], facts: DiagnosisFacts, now: datetime) -> Diagnosis:
    """Rank the causes and pick the path. `now` only words how long ago things happened."""
    states = {f.key: f for f in findings}
    lines_of = evidence(states, facts, now)
    causes = [_score(cause, lines) for cause, lines in lines_of.items()]
    causes = sorted(causes, key=lambda c: (-round(c.score, 6), list(Cause).index(c.cause)))
    if causes[0].score < BAR:
        causes.insert(0, ScoredCause(Cause.UNKNOWN, 0.0, ("no cause is supported well enough to act on",)))
    top = causes[0]
    path, version, threshold, advice = _path(top.cause, facts, states, look_through(findings, lines_of))
    headline = HEADLINES[top.cause].format(version=facts.suspect_version or "the serving version")
    short = f"{headline}: {'; '.join(top.supports[:1])}"
    if facts.degraded and facts.degraded_words not in short:
        short += f"; {facts.degraded_words}"
    sentence = f"{headline}: {'; '.join(top.supports)}. {advice}"
    change = {
        Cause.BAD_DEPLOYMENT: facts.deployment,
        Cause.THRESHOLD_CHANGE: facts.threshold_change,
        Cause.BAD_ROLLOUT: facts.rollout.suspect,
    }.get(top.cause)
    chain = _chain(top.cause, facts, states)
    repair = repair_of(facts.features) if path is Path.MATERIALIZE and facts.features else None
    back = facts.rollout.target if path is Path.UNDO_ROLLOUT else None
    return Diagnosis(
        tuple(causes),
        path,
        chain,
        sentence,
        short,
        began_at=change.at if change else None,
        target_version=version,
        target_threshold=threshold,
        target_revision=back.number if back else None,
        repair=repair,
        advice=advice,
    )


def repair_of(features: FeatureVerdict) -> Repair:
    since = features.since.isoformat() if features.since else None
    return Repair(features.views, since, features.resume, as_of=features.judged_at.isoformat())


def _score(cause: Cause, lines: Sequence[Line]) -> ScoredCause:
    score = sum(line.weight for line in lines if line.holds) / sum(line.weight for line in lines)
    if any(line.required and line.holds is None for line in lines):
        score = min(score, BAR - 0.1)
    if any(line.required and line.holds is False for line in lines):
        score = 0.0

    def said(holds: bool | None) -> tuple[str, ...]:
        return tuple(line.sentence for line in lines if line.holds is holds)

    return ScoredCause(cause, round(score, 3), said(True), said(False), said(None))


def _path(
    cause: Cause, facts: DiagnosisFacts, found: Mapping[str, Finding], suspects: str
) -> tuple[Path | None, str | None, float | None, str]:
    """The path, its target, and the advice in words; `suspects`: what to go through where nothing better is known."""
    change, features = facts.threshold_change, facts.features
    if cause is Cause.BAD_DEPLOYMENT:
        return _to_what_loads(facts) if facts.not_loaded else _back(facts)
    if cause is Cause.BAD_ROLLOUT:
        back = facts.rollout.target
        if back is None:
            return None, None, None, f"No safe automatic path here: {facts.rollout.why}; roll out a fixed template"
        advice = f"Undo the rollout, back to revision {back.number} ({', '.join(back.images)}), {facts.rollout.why}"
        return Path.UNDO_ROLLOUT, None, None, advice
    if cause is Cause.SERVING_INFRASTRUCTURE and facts.trouble:
        restart, advice = answer(facts.trouble, deployed=facts.deployed_in_a_day)
        return (Path.RESTART, None, None, advice) if restart else (None, None, None, f"No safe automatic path here: {advice}")
    if cause is Cause.THRESHOLD_CHANGE and change:
        return Path.THRESHOLD, None, change.before, f"Path D: restore the threshold {change.before:g} that was configured before"
    if cause in (Cause.STALE_FEATURES, Cause.NULL_OR_BROKEN_FEATURE) and features and features.mendable:
        return Path.MATERIALIZE, None, None, f"Path B: materialize {', '.join(features.views)}"
    upstream = _upstream(facts, found)
    hit = ", ".join(facts.fallen_types)
    if hit and cause in (Cause.CONCEPT_DRIFT, Cause.DATA_DRIFT):
        return None, None, None, f"No safe automatic path here: {_SEGMENT_ADVICE.format(hit)}"
    learnable = cause is not Cause.DATA_DRIFT or upstream.broken_sensor is False
    if str(cause) in facts.retrain_triggers and learnable:
        return Path.RETRAIN, None, None, "Path C: retrain on recent data, and promote only what proves better"
    look = {
        Cause.FEATURE_STORE_OUTAGE: "restore the feature store, then materialize what came meanwhile (deployment `materialize`)",
        Cause.NULL_OR_BROKEN_FEATURE: "find where the feature's values are lost: source, pipeline, feature store",
        Cause.STALE_FEATURES: f"look at the feature store: {features.sentence if features else 'it was not read'}",
        Cause.NEW_SEGMENT: "label and retrain with the new type (deployment `retrain`)",
        Cause.LABEL_PROBLEM: "look at the feed of outcomes, from the maintenance records to the platform; change no model until they "
        "arrive again",
        Cause.ATTACK: "have security find who sends these requests and take their token away; keep the prediction log, and look at the "
        f"work orders of {_assets_words(facts)}",
        Cause.DATA_DRIFT: _drift_advice(upstream),
        Cause.CONCEPT_DRIFT: "find out what changed in the world, then retrain on data from after it (deployment `retrain`)",
        Cause.NOTHING_WRONG: "wait for more outcomes, or close it as a false alarm (mlrunbook incidents close --false-alarm)",
    }.get(cause, suspects)
    if cause is Cause.UNKNOWN and facts.missed:
        look = f"look at the asset, its readings before the failure and what its sensors cannot see ({facts.missed}); the model is no worse"
    return None, None, None, f"No safe automatic path here: {look}"


def look_through(findings: Sequence[Finding], lines_of: Mapping[Cause, Sequence[Line]]) -> str:
    """What to go through by hand: the suspect findings, first those that speak most for any cause."""
    suspect = [f for f in findings if f.state is State.SUSPECT]
    unknown = sum(f.state is State.UNKNOWN for f in findings)
    not_checked = f"; {unknown} item{'s' if unknown > 1 else ''} could not be checked" if unknown else ""
    if not suspect:
        return f"no checked item is suspect{not_checked}; look at what could not be checked, and at the model itself"

    def weight(finding: Finding) -> float:
        lines = [line for lines in lines_of.values() for line in lines if line.holds and finding.sentence in line.sentence]
        return max((line.weight for line in lines), default=0.0)

    place = [item.key for item in CHECKLIST]
    ranked = sorted(suspect, key=lambda f: (-weight(f), place.index(f.key)))
    shown = "; ".join(f"{n}. {shortened(f.sentence, SUSPECT_CHARS)}" for n, f in enumerate(ranked[:SUSPECTS_SHOWN], start=1))
    more = f"; and {len(ranked) - SUSPECTS_SHOWN} more" if len(ranked) > SUSPECTS_SHOWN else ""
    return f"go through the suspect findings: {shown}{more}{not_checked}"


def shortened(sentence: str, most: int) -> str:
    return sentence if len(sentence) <= most else sentence[: most - 1].rstrip() + "…"


# Path C weighs all assets together: a candidate may win over all and leave the one type as it is, and so may a recovery check.
_SEGMENT_ADVICE = (
    "look at asset type {0} alone: what changed for these machines, and who is harmed by it; decide whether its predictions still "
    "count, and whether to retrain with enough of its outcomes (deployment `retrain`)"
)


def _upstream(facts: DiagnosisFacts, found: Mapping[str, Finding]) -> Upstream:
    metrics = facts.metrics
    before, now = (metrics.baseline.confusion, metrics.current.confusion) if metrics else (Confusion(), Confusion())
    return judge_upstream(moved_features(found.get(DISTRIBUTIONS)), facts.courses, before, now)


def _drift_advice(upstream: Upstream) -> str:
    if upstream.broken_sensor:
        return f"{upstream.sentence}; have the sensor and its last recalibration checked: retraining would teach the model its error"
    return f"{upstream.sentence}; confirm the drift, then retrain on recent data (deployment `retrain`)"


def _assets_words(facts: DiagnosisFacts) -> str:
    named = facts.probing.assets[:3] if facts.probing else ()
    return ", ".join(named) or "the assets asked about"


def _to_what_loads(facts: DiagnosisFacts) -> tuple[Path | None, str | None, float | None, str]:
    """Back to the version that really serves, so that the next start of a server finds it; where none does, to the one before."""
    status = facts.status
    keep = (status.server_version or status.previous_version) if status else None
    if status is None or keep in (None, status.serving_version):
        return None, None, None, "No safe automatic path here: no version is known that loads; deploy a fixed one"
    which = "which serves now" if status.server_version else "which served before"
    return Path.ROLLBACK, keep, None, f"Path A: roll back to {keep}, {which}"


def _back(facts: DiagnosisFacts) -> tuple[Path | None, str | None, float | None, str]:
    """The version that wins the replay; where too little is known to replay, the one that served before, and that is said."""
    status, previous, targets = facts.status, facts.status.previous_version if facts.status else None, facts.targets
    if status and facts.model_version and status.serving_version != facts.model_version:
        kept = status.serving_version  # a temporary rollback has been made already: stay there, unless it is no better
        refused = targets is not None and any(v.version == kept and v.judged is Judged.REFUSED for v in targets.ranking)
        if not refused and (targets is None or targets.not_enough_evidence or targets.target == kept):
            doubt = f" ({targets.sentence})" if targets and targets.target != kept else ""
            return Path.ROLLBACK, kept, None, f"Path A: roll back to {kept}, which serves already{doubt}"
    if targets is not None and not targets.not_enough_evidence:
        if targets.target:
            return Path.ROLLBACK, targets.target, None, f"Path A: roll back to {targets.target}: {targets.sentence}"
        tried = " or ".join(v.version for v in targets.ranking)
        why = f"replayed on {targets.rows} requests, {tried} would not do better" if targets.ranking else "there is no other version"
        return None, None, None, f"No safe automatic path here: {why}; deploy a fixed version"
    if targets and any(v.version == previous and v.judged is Judged.REFUSED for v in targets.ranking):
        return None, None, None, f"No safe automatic path here: {previous} would not do better ({targets.sentence}); deploy a fixed version"
    if previous and previous != facts.model_version:
        doubt = f" ({targets.sentence})" if targets else ""
        return Path.ROLLBACK, previous, None, f"Path A: roll back to {previous}{doubt}"
    return None, None, None, "No safe automatic path here: there is no previous version to go back to; deploy a fixed one"


def _chain(cause: Cause, facts: DiagnosisFacts, found: Mapping[str, Finding]) -> tuple[str, ...]:
    """Why-because lines, as far as the facts reach; the review asks on from there."""
    counts = facts.metrics.current.confusion if facts.metrics else None
    version, deployment, change = facts.model_version or "the model", facts.deployment, facts.threshold_change
    if cause is Cause.BAD_ROLLOUT:
        served = f"Why did requests not get their predictions? Because {facts.trouble.sentence}" if facts.trouble else ""
        return tuple(line for line in (served, f"Why is the model server not well? Because {facts.rollout.sentence}") if line)
    if cause is Cause.SERVING_INFRASTRUCTURE and facts.trouble:
        return (f"Why did requests not get their predictions in time? Because {facts.trouble.sentence}",)
    if cause is Cause.BAD_DEPLOYMENT and facts.not_loaded:
        chain = [f"Why does {facts.suspect_version} not serve? Because {facts.not_loaded}"]
        chain += [f"Why should it? Because {deployment.author} released it at {deployment.at:%Y-%m-%d %H:%M} UTC"] if deployment else []
        return tuple(chain)
    chain = [f"Why did performance fall? Because {_errors_words(version, counts)}"]
    if cause is Cause.THRESHOLD_CHANGE and change and facts.replay_before:
        chain.append(f"Why did {version} do so? Because its decision threshold was {change.after:g} instead of {change.before:g}")
        chain.append(f"Why is the threshold the reason? Because {facts.replay_before.sentence}")
        chain.append(f"Why was it {change.after:g}? Because {change.author} set it at {change.at:%Y-%m-%d %H:%M} UTC")
        return tuple(chain)
    if cause is Cause.BAD_DEPLOYMENT and deployment:
        chain.append(f"Why did {version} answer? Because {deployment.author} made it serve at {deployment.at:%Y-%m-%d %H:%M} UTC")
        if facts.replay_best and facts.replay_best.recoverable is False:
            chain.append(f"Why is the model itself the reason? Because even {facts.replay_best.sentence}")
        return tuple(chain)
    if cause is Cause.NEW_SEGMENT and facts.unseen_types:
        chain.append(f"Why did {version} do so? Because assets of type {', '.join(facts.unseen_types)} were not in its training data")
        chain.append(f"Why were they not in it? Because {version} was trained before they joined the fleet, and not again since")
        return tuple(chain)
    if hit := ", ".join(facts.fallen_types):
        chain = [f"Why did performance fall? Because {version} is wrong about asset type {hit}: {facts.degraded_words}"]
    if cause is Cause.LABEL_PROBLEM and facts.feed:
        return (f"Why is performance not known? Because {facts.feed.sentence}",)
    if cause is Cause.ATTACK and facts.probing:
        return (f"Why is it an attack? Because of {facts.probing.sentence}",)
    if cause is Cause.CONCEPT_DRIFT:
        chain.append(f"Why did {version} do so? Because the same readings lead to other outcomes than in its training data")
        if facts.targets and not facts.targets.not_enough_evidence:
            chain.append(f"Why is it not the release? Because {facts.targets.sentence}")
        return tuple(chain)
    if cause is Cause.STALE_FEATURES and facts.features:
        chain.append(f"Why did {version} do so? Because {facts.features.sentence}")
        return tuple(chain)
    key = {
        Cause.DATA_DRIFT: DISTRIBUTIONS,
        Cause.NULL_OR_BROKEN_FEATURE: "data_quality.missing_features",
        Cause.FEATURE_STORE_OUTAGE: "data_quality.feature_store_connectivity",
    }.get(cause)
    if key and key in found:
        chain.append(f"Why did that happen? Because {found[key].sentence}")
    upstream = _upstream(facts, found)
    if cause is Cause.DATA_DRIFT and upstream.broken_sensor is not None:
        chain.append(f"Why did that move? Because {upstream.sentence}")
    return () if cause is Cause.NOTHING_WRONG else tuple(chain)


def _errors_words(version: str, counts: Confusion | None) -> str:
    if counts is None or counts.n == 0:
        return f"{version} gave wrong or no answers (not measured)"
    return f"{version} missed {counts.fn} of {counts.positives} failures, and {counts.fp} of its {counts.tp + counts.fp} alarms were false"
