"""Two versions on the same requests with known outcomes: segment by segment; may a retrained candidate take over, and does it hold up?

A verdict comes with its sentence; too few known failures is an answer of its own, never a yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from mlrunbook.domain.evaluation.paired import Paired, compare, difference
from mlrunbook.domain.evaluation.performance import Confusion, Evidence, f1_interval, grade_drop, wilson, z_value
from mlrunbook.domain.observed import ModelVersion, Prediction, Replayed, VersionReplay
from mlrunbook.domain.policy.judging import F1, DropPolicy
from mlrunbook.domain.policy.policy import Retraining

BINS = 10
TRAINING_DATA = "training data"
FAST_ENOUGH_MS = 10.0  # under this one row's latency is noise to a server that answers in seconds


@dataclass(frozen=True)
class Check:
    """One line of a verdict. `passed` None: not applicable, or not known."""

    name: str
    passed: bool | None
    sentence: str
    value: float | None = None


@dataclass(frozen=True)
class SideBySide:
    """Which of the same rows two versions flag. `..._types`: the asset types that a version was trained on, where known."""

    rows: Sequence[Prediction]
    first: str
    second: str
    first_flags: Sequence[bool]
    second_flags: Sequence[bool]
    first_types: Sequence[str] | None = None
    second_types: Sequence[str] | None = None

    def compare(self, confidence: float, at: Sequence[int] | None = None) -> Paired:
        """On all rows, or on those `at` these places."""
        at = range(len(self.rows)) if at is None else at
        truth = [bool(self.rows[i].outcome) for i in at]
        return compare(truth, [self.first_flags[i] for i in at], [self.second_flags[i] for i in at], confidence=confidence)

    def words(self, pair: Paired, confidence: float) -> str:
        """'v1.5.0 F1 0.81 (0.73-0.87) against v2.0.0 0.47: +0.34 (0.24 to 0.44), right in 70 of 84 disagreements, p < 0.001'."""
        low, high = f1_interval(pair.second, confidence)
        p = "p < 0.001" if pair.p_value < 0.001 else f"p = {pair.p_value:.3f}"
        gain = f"{pair.gain:+.2f} ({pair.low:+.2f} to {pair.high:+.2f})" if pair.gain is not None else "not comparable"
        right = f"right in {pair.second_right} of {pair.disagreements} disagreements, {p}"
        return f"{self.second} F1 {two(pair.second.f1)} ({low:.2f}-{high:.2f}) against {self.first} {two(pair.first.f1)}: {gain}, {right}"

    def only_first_knows(self, asset_type: str) -> bool:
        """Only the first was trained on it, as far as known."""
        return _lacks(self.second_types, asset_type) and not _lacks(self.first_types, asset_type)

    def only_second_knows(self, asset_type: str) -> bool:
        return _lacks(self.first_types, asset_type) and not _lacks(self.second_types, asset_type)


def _lacks(types: Sequence[str] | None, asset_type: str) -> bool:
    return types is not None and asset_type not in types


def segments(seen: SideBySide, policy: DropPolicy) -> tuple[Check, ...]:
    """The second version against the first on each asset type; failed where worse beyond chance, corrected for the number of segments
    (Bonferroni). Without known failures a segment is not applicable."""
    by_type: dict[str, list[int]] = {}
    for i, row in enumerate(seen.rows):
        by_type.setdefault(row.asset_type, []).append(i)
    judged = sum(any(seen.rows[i].outcome for i in at) for at in by_type.values())
    confidence = 1 - (1 - policy.confidence) / max(judged, 1)
    return tuple(_segment(seen, name, at, confidence) for name, at in sorted(by_type.items()))


def _segment(seen: SideBySide, name: str, at: Sequence[int], confidence: float) -> Check:
    label, where = f"segment {name}", f"asset type {name}"
    if seen.only_first_knows(name):
        return Check(label, False, f"{seen.second} was never trained on {where}, {len(at)} of {len(seen.rows)} requests")
    if not any(seen.rows[i].outcome for i in at):
        return Check(label, None, f"{where}: no known failure in {len(at)} requests, not applicable")
    pair = seen.compare(confidence, at)
    ratios = f"F1 {two(pair.first.f1)} with {seen.first}, {two(pair.second.f1)} with {seen.second}"
    words = f"{where}: {ratios}, {pair.second.positives} known failures"
    if pair.worse:
        return Check(label, False, f"{seen.second} is worse than {seen.first} on {words}", pair.gain)
    if seen.only_second_knows(name):
        words = f"{words}; {seen.first} was never trained on it"
    return Check(label, True, words, pair.gain)


def scored_by(replayed: Replayed) -> str:
    """Which artefacts were run, and what came of each; "" where nobody says which."""
    return "; ".join(_scored_by(one, len(replayed.rows)) for one in replayed.versions if one.digest or (one.problem and _ran(replayed)))


def _ran(replayed: Replayed) -> bool:
    return any(one.digest for one in replayed.versions)


def _scored_by(one: VersionReplay, rows: int) -> str:
    made_of = f" (sha256 {one.digest})" if one.digest else ""
    if one.problem:
        return f"{one.version}{made_of} not compared: {one.problem}"
    return f"{one.version}{made_of} scored {rows} logged requests" + (", labels alone" if one.labels_only else "")


class Decision(StrEnum):
    PROMOTE = "promote"
    DO_NOT_PROMOTE = "do_not_promote"
    NOT_ENOUGH_EVIDENCE = "not_enough_evidence"


@dataclass(frozen=True)
class CandidateVerdict:
    """`champion` and `candidate` are the counts on the same rows, all later than the candidate's training data."""

    verdict: Decision
    sentence: str
    checks: tuple[Check, ...]
    rows: int
    positives: int
    champion: Confusion
    candidate: Confusion


def validate(
    replayed: Replayed,
    *,
    champion: ModelVersion,
    candidate: ModelVersion,
    threshold: float,
    policy: Retraining,
    drops: DropPolicy,
    training: Check | None = None,
) -> CandidateVerdict:
    """May `candidate` take over from `champion`? On the rows of `replayed` that its training never saw, at the serving `threshold`.

    `training`: whether the rows that it learned are fit to learn from; None: not looked at.

    Promote: no check fails and its F1 is higher beyond chance. Do not promote: a check fails, or it is no better. Not enough evidence:
    too few known failures, or the better F1 can be chance.
    """
    rows, versions = _unseen(replayed, candidate.unseen_from)
    own, theirs = versions.get(candidate.version), versions.get(champion.version)
    if own is None or own.problem:
        return _cannot_score(candidate.version, own, rows)
    their_scores = theirs.scores if theirs and not theirs.problem else tuple(p.score for p in rows)
    seen = SideBySide(
        rows,
        champion.version,
        candidate.version,
        [s >= threshold for s in their_scores],
        [s >= threshold for s in own.scores],
        champion.asset_types,
        candidate.asset_types,
    )
    pair = seen.compare(drops.confidence)
    words = seen.words(pair, drops.confidence)
    checks = (
        Check("f1", pair.better or (None if (pair.gain or 0.0) > 0 else False), words, pair.gain),
        *(_rate(name, champion.version, candidate.version, pair, drops) for name in ("precision", "recall")),
        *segments(seen, drops),
        _calibration([bool(p.outcome) for p in rows], own, their_scores, policy),
        _schema(champion, candidate),
        _size(own, policy),
        _latency(own, theirs, policy),
        *([training] if training else []),
    )
    span = f"on {len(rows)} requests after {candidate.unseen_from:%Y-%m-%d %H:%M:%S} UTC"
    decision, sentence = _decided(candidate.version, pair, checks, f"{words}, {span}", span, policy)
    return CandidateVerdict(decision, sentence, checks, len(rows), pair.second.positives, pair.first, pair.second)


def _cannot_score(version: str, own: VersionReplay | None, rows: Sequence[Prediction]) -> CandidateVerdict:
    why = own.problem if own else "the platform did not replay it"
    schema = Check("schema", False, f"{version} cannot score the requests: {why}")
    positives, nothing = sum(bool(p.outcome) for p in rows), Confusion()
    return CandidateVerdict(Decision.DO_NOT_PROMOTE, schema.sentence, (schema,), len(rows), positives, nothing, nothing)


def _decided(version: str, pair: Paired, checks: Sequence[Check], words: str, span: str, policy: Retraining) -> tuple[Decision, str]:
    failed = [c for c in checks if c.passed is False and c.name != "f1"]
    if pair.second.positives < policy.min_positives:
        if hard := [c for c in failed if c.name in ("schema", "size", TRAINING_DATA)]:  # these need no failures to be known
            return Decision.DO_NOT_PROMOTE, "; ".join(c.sentence for c in hard)
        short = f"only {pair.second.positives} known failures {span}, {policy.min_positives} needed"
        return Decision.NOT_ENOUGH_EVIDENCE, f"{short}: wait for outcomes, or hold out more"
    if failed:
        return Decision.DO_NOT_PROMOTE, f"{words}; {'; '.join(c.sentence for c in failed)}"
    if pair.better:
        return Decision.PROMOTE, words
    if (pair.gain or 0.0) <= 0:
        return Decision.DO_NOT_PROMOTE, f"{version} is no better: {words}"
    return Decision.NOT_ENOUGH_EVIDENCE, f"{version} may be better, but chance explains it: {words}"


def _unseen(replayed: Replayed, since: datetime) -> tuple[tuple[Prediction, ...], dict[str, VersionReplay]]:
    """Rows from `since` on, and every version's scores for those."""
    keep = [i for i, p in enumerate(replayed.rows) if p.at >= since]
    versions = {v.version: replace(v, scores=tuple(v.scores[i] for i in keep) if v.scores else ()) for v in replayed.versions}
    return tuple(replayed.rows[i] for i in keep), versions


def _rate(name: str, champion: str, candidate: str, pair: Paired, policy: DropPolicy) -> Check:
    """Precision or recall. Shown with its interval; F1 decides, because each can be bought with the other."""
    parts = []
    for version, counts in ((candidate, pair.second), (champion, pair.first)):
        n = counts.tp + (counts.fp if name == "precision" else counts.fn)
        low, high = wilson(counts.tp, n, z_value(policy.confidence))
        parts.append(f"{version} {counts.tp / n:.2f} ({low:.2f}-{high:.2f})" if n else f"{version} undefined")
    return Check(name, None, f"{name}: {', '.join(parts)}", getattr(pair.second, name))


def _calibration(truth: Sequence[bool], own: VersionReplay, others: Sequence[float], policy: Retraining) -> Check:
    """Expected calibration error (ten equal bins; Naeini et al. 2015) within the limit, and a Brier score (Brier 1950) better than
    always giving the share of failures: a model of rare events is easily calibrated on average while it knows nothing."""
    if not truth:
        return Check("calibration", None, "calibration: no outcomes known")
    if own.labels_only:
        return Check("calibration", None, f"{own.version} gives labels alone: neither its calibration nor a threshold can be judged")
    scores = own.scores
    error, brier, other = calibration_error(truth, scores), brier_score(truth, scores), brier_score(truth, others)
    share = sum(truth) / len(truth)
    reference = share * (1 - share)
    words = f"calibration error {error:.3f} (limit {policy.max_calibration_error:g}), Brier score {brier:.4f} (champion {other:.4f}, "
    passed = error <= policy.max_calibration_error and (brier < reference or not reference)
    return Check("calibration", passed, f"{words}knowing only the share {reference:.4f})", error)


def calibration_error(truth: Sequence[bool], scores: Sequence[float]) -> float:
    """Mean distance of the score from the share of failures over ten equal bins of the score, weighted by their rows."""
    bins: list[list[int]] = [[] for _ in range(BINS)]
    for i, score in enumerate(scores):
        bins[min(int(score * BINS), BINS - 1)].append(i)
    return sum(abs(sum(scores[i] - truth[i] for i in at)) for at in bins) / max(len(scores), 1)


def brier_score(truth: Sequence[bool], scores: Sequence[float]) -> float:
    return sum((s - t) ** 2 for s, t in zip(scores, truth, strict=True)) / max(len(scores), 1)


def _schema(champion: ModelVersion, candidate: ModelVersion) -> Check:
    if champion.features is None or candidate.features is None:
        whose = " and ".join(v.version for v in (champion, candidate) if v.features is None)
        return Check("schema", None, f"the registry does not say which features {whose} needs: log it with a signature")
    theirs, own = set(champion.features), set(candidate.features)
    more, fewer = sorted(own - theirs), sorted(theirs - own)
    if more:
        return Check("schema", False, f"{candidate.version} needs features that {champion.version} is not served: {', '.join(more)}")
    words = f"all {len(candidate.features)} features it needs are served"
    return Check("schema", True, words + (f"; it does without {', '.join(fewer)}" if fewer else ""))


def _size(own: VersionReplay, policy: Retraining) -> Check:
    if own.size_bytes is None:
        return Check("size", None, "the artefact's size is not known")
    size_mb = own.size_bytes / 1e6
    return Check("size", size_mb <= policy.max_size_mb, f"the artefact has {size_mb:.1f} MB (limit {policy.max_size_mb:g})", size_mb)


def _latency(own: VersionReplay, theirs: VersionReplay | None, policy: Retraining) -> Check:
    if own.latency_ms is None or theirs is None or not theirs.latency_ms:
        return Check("latency", None, "one row's latency was not measured")
    ratio = own.latency_ms / theirs.latency_ms
    words = f"one row takes {own.latency_ms:.1f} ms, {ratio:.1f} times the champion's {theirs.latency_ms:.1f} ms"
    passed = ratio <= policy.max_latency_ratio or own.latency_ms <= FAST_ENOUGH_MS
    return Check("latency", passed, f"{words} (limit {policy.max_latency_ratio:g} times, above {FAST_ENOUGH_MS:g} ms)", ratio)


@dataclass(frozen=True)
class ShadowVerdict:
    """`passed` None: not decided yet. The counts are those of live requests that both versions scored."""

    passed: bool | None
    sentence: str
    rows: int
    positives: int
    champion: Confusion
    candidate: Confusion


def shadowed_offline(replayed: Replayed, version: str) -> tuple[tuple[Prediction, ...], str | None]:
    """The replayed requests as if `version` had scored them in the shadow; or none, and why it cannot score them."""
    own = next((one for one in replayed.versions if one.version == version), None)
    if own is None or own.problem:
        return (), own.problem if own and own.problem else "it was not replayed"
    pairs = zip(replayed.rows, own.scores, strict=True)
    return tuple(replace(row, shadow_version=version, shadow_score=score) for row, score in pairs), None


def compare_shadow(
    rows: Sequence[Prediction], version: str, threshold: float, policy: Retraining, drops: DropPolicy, *, offline: bool = False
) -> ShadowVerdict:
    """Did `version` hold up in the shadow of live traffic? Of `rows` those count that it scored too and whose outcome is known. `offline`:
    it scored them later, from the log.

    Validation has shown that it is better; the shadow must not contradict: refused when worse beyond chance, over all or on a segment;
    passed when its F1 is at least as high; undecided while failures are few, or while a lower F1 can be chance.
    """
    shadowed = [p for p in rows if p.shadow_version == version and p.shadow_score is not None and p.outcome is not None]
    champion = ", ".join(sorted({p.version for p in shadowed})) or "the serving version"
    flags, own = [p.score >= threshold for p in shadowed], [(p.shadow_score or 0.0) >= threshold for p in shadowed]
    seen = SideBySide(shadowed, champion, version, flags, own)
    pair = seen.compare(drops.confidence)
    positives = pair.second.positives
    where = f"offline, on {len(shadowed)} logged requests" if offline else f"in the shadow of {len(shadowed)} live requests"
    words = f"{where} {seen.words(pair, drops.confidence)}"

    def verdict(passed: bool | None, sentence: str) -> ShadowVerdict:
        return ShadowVerdict(passed, sentence, len(shadowed), positives, pair.first, pair.second)

    if positives < policy.shadow_min_positives or pair.gain is None:
        of = "among the requests logged since it was staged" if offline else "in the shadow of live traffic"
        return verdict(None, f"too early to say: {positives} of {policy.shadow_min_positives} failures known {of}")
    worse = [c.sentence for c in segments(seen, drops) if c.passed is False]
    if pair.worse or worse:
        return verdict(False, "; ".join([words, *worse]))
    return verdict(True if pair.gain >= 0 else None, words if pair.gain >= 0 else f"lower, but chance explains it: {words}")


def promotion_fell(
    compared: Confusion, live: Confusion, policy: DropPolicy, *, version: str = "the promoted version"
) -> tuple[bool | None, str]:
    """Has a promoted version's live F1 fallen against the counts it was promoted on? None: too few known failures to say.

    Fell: by more than the policy's rule for F1 allows and beyond chance. The counts are of different rows, so both intervals count
    (`paired.difference`), unlike with a known baseline.
    """
    graded = grade_drop(compared, live, policy)
    gain, low, high = difference(compared, live, confidence=policy.confidence)
    if graded.evidence is Evidence.INSUFFICIENT or gain is None:
        return None, f"{version}: {graded.reason}"
    words = f"{version}: F1 {two(compared.f1)} when promoted, {two(live.f1)} live: {gain:+.2f} ({low:+.2f} to {high:+.2f})"
    fell = high < 0 and (live.f1 or 0.0) < (compared.f1 or 0.0) * (1 - policy.most(F1))
    return fell, f"{words}, {'a fall beyond chance' if fell else 'no fall beyond chance'}"


def two(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"
