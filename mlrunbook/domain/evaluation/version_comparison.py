"""Which version may serve next: a target to roll back to, a retrained candidate, and what was promoted.

Every version is judged on the same requests with known outcomes, at the same threshold, against the version in question. A verdict
comes with its sentence; too few known failures is an answer of its own, never a yes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from mlrunbook.domain.evaluation.paired import Paired, compare, difference
from mlrunbook.domain.evaluation.performance import Confusion, Evidence, f1_interval, grade_drop, wilson, z_value
from mlrunbook.domain.observed import ModelVersion, Prediction, Replayed, VersionReplay
from mlrunbook.domain.policy.judging import DropPolicy
from mlrunbook.domain.policy.policy import Retraining

BINS = 10
FAST_ENOUGH_MS = 10.0  # under this one row's latency is noise to a server that answers in seconds


class Judged(StrEnum):
    ACCEPTED = "accepted"
    REFUSED = "refused"
    NOT_ENOUGH_EVIDENCE = "not_enough_evidence"


@dataclass(frozen=True)
class TargetVerdict:
    """One version as a target of a rollback. `low`..`high`: 95 % interval of its F1; `gain` over the version in question likewise."""

    version: str
    judged: Judged
    sentence: str
    f1: float | None = None
    low: float | None = None
    high: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class TargetChoice:
    """`target` None: no version is offered. `not_enough_evidence` then tells "nobody can say" (at least one version may still be good)
    from "all refused". `ranking`: accepted first, the highest F1 first."""

    target: str | None
    ranking: tuple[TargetVerdict, ...]
    sentence: str
    not_enough_evidence: bool
    rows: int
    positives: int


def choose_target(
    replayed: Replayed,
    *,
    current: str,
    threshold: float,
    baseline_f1: float | None,
    policy: DropPolicy,
    known: Mapping[str, ModelVersion] | None = None,
) -> TargetChoice:
    """The version to go back to from `current`, replayed at the serving `threshold`; every other version in `replayed` is a candidate.

    Refused, with its reason: what cannot score the requests; what was not trained on an asset type that `current` was trained on
    and that occurs (`known`); what is worse than `current` on a segment beyond chance; what is no better over all; what would
    itself count as a fall against `baseline_f1` (None: not known), because it would not restore service. Of the others the
    newest wins that the one with the highest F1 does not beat beyond chance: the latest sound release, not a lucky old one. Rows
    that a version was trained on (`known`) do not count for it. Where `current` cannot be replayed its logged scores count.
    """
    known = known or {}
    found = next((v for v in replayed.versions if v.version == current and not v.problem), None)
    at = [i for i, p in enumerate(replayed.rows) if found or p.version == current]
    rows = tuple(replayed.rows[i] for i in at)
    theirs = [found.scores[i] if found else replayed.rows[i].score for i in at]
    positives = sum(bool(p.outcome) for p in rows)
    verdicts: list[TargetVerdict] = []
    alarms: dict[str, dict[int, bool]] = {}
    for candidate in replayed.versions:
        name = candidate.version
        if name == current:
            continue
        if problem := candidate.problem or _never_saw(name, current, rows, known):
            verdicts.append(TargetVerdict(name, Judged.REFUSED, f"{name} does not qualify: {problem}"))
            continue
        own = [candidate.scores[i] for i in at]
        fair = [i for i, p in enumerate(rows) if name not in known or p.at >= known[name].trained_to]
        seen, flags, own_flags = [rows[i] for i in fair], [theirs[i] >= threshold for i in fair], [own[i] >= threshold for i in fair]
        verdicts.append(_as_target(name, current, seen, flags, own_flags, baseline_f1, policy))
        alarms[name] = dict(zip(fair, own_flags, strict=True))
    order = list(Judged)
    ranking = sorted(reversed(verdicts), key=lambda v: (order.index(v.judged), -(v.f1 or 0.0)))  # of equal ones the newest
    accepted = [v for v in verdicts if v.judged is Judged.ACCEPTED]
    best = _newest_of_the_best(accepted, rows, alarms, policy) if accepted else None
    open_ = best is None and any(v.judged is Judged.NOT_ENOUGH_EVIDENCE for v in ranking)
    words = f"on {len(rows)} requests with {positives} known failures"
    if best:
        sentence = f"{best.version} is the target, {words}: {best.sentence}"
    elif not ranking:
        sentence = f"there is no other version than {current} to go back to"
    elif open_:
        sentence = f"no version is proven better than {current}, {words}: {'; '.join(v.sentence for v in ranking)}"
    else:
        sentence = f"every version is refused, {words}: {'; '.join(v.sentence for v in ranking)}"
    return TargetChoice(best.version if best else None, tuple(ranking), sentence, open_, len(rows), positives)


def _newest_of_the_best(
    accepted: Sequence[TargetVerdict], rows: Sequence[Prediction], alarms: Mapping[str, Mapping[int, bool]], policy: DropPolicy
) -> TargetVerdict:
    """`accepted` in the order of `Replayed.versions`: the newest last."""
    top = max(accepted, key=lambda v: v.f1 or 0.0)
    for verdict in reversed(accepted):
        both = sorted(alarms[top.version].keys() & alarms[verdict.version].keys())
        truth = [bool(rows[i].outcome) for i in both]
        pair = compare(
            truth,
            [alarms[top.version][i] for i in both],
            [alarms[verdict.version][i] for i in both],
            confidence=policy.confidence,
        )
        if not pair.worse:
            return verdict
    return top


def _as_target(
    name: str,
    current: str,
    rows: Sequence[Prediction],
    flagged: Sequence[bool],
    own: Sequence[bool],
    baseline_f1: float | None,
    policy: DropPolicy,
) -> TargetVerdict:
    truth = [bool(p.outcome) for p in rows]
    pair = compare(truth, flagged, own, confidence=policy.confidence)
    low, high = f1_interval(pair.second, policy.confidence)
    numbers = TargetVerdict(
        name, Judged.REFUSED, "", pair.second.f1, low, high, pair.gain, pair.low, pair.high, pair.p_value
    )  # fmt: skip
    words = gain_words(name, current, pair, low, high)

    def verdict(judged: Judged, why: str) -> TargetVerdict:
        return replace(numbers, judged=judged, sentence=why)

    if pair.second.positives < policy.min_positives or pair.gain is None:
        short = f"only {pair.second.positives} known failure(s), {policy.min_positives} needed"
        return verdict(Judged.NOT_ENOUGH_EVIDENCE, f"{name} cannot be judged: {short}")
    if worse := [s.sentence for s in segments(rows, truth, flagged, own, first=current, second=name, policy=policy) if s.passed is False]:
        return verdict(Judged.REFUSED, "; ".join(worse))
    if pair.gain <= 0:
        return verdict(Judged.REFUSED, f"{name} is no better than {current} (F1 {_two(pair.second.f1)} vs {_two(pair.first.f1)}): {words}")
    if baseline_f1 and (pair.second.f1 or 0.0) < baseline_f1 * (1 - policy.f1_medium) and high < baseline_f1:
        return verdict(Judged.REFUSED, f"{name} would not restore service: {words}, the baseline is {baseline_f1:.2f}")
    if not pair.better:
        return verdict(Judged.NOT_ENOUGH_EVIDENCE, f"{name} may be better, but chance explains it: {words}")
    return verdict(Judged.ACCEPTED, words)


def gain_words(name: str, other: str, pair: Paired, low: float, high: float) -> str:
    """'v1.5.0 F1 0.81 (0.73-0.87) against v2.0.0 0.47: +0.34 (0.24 to 0.44), right in 70 of 84 disagreements, p < 0.001'."""
    p = "p < 0.001" if pair.p_value < 0.001 else f"p = {pair.p_value:.3f}"
    gain = f"{pair.gain:+.2f} ({pair.low:+.2f} to {pair.high:+.2f})" if pair.gain is not None else "not comparable"
    right = f"right in {pair.second_right} of {pair.disagreements} disagreements, {p}"
    return f"{name} F1 {_two(pair.second.f1)} ({low:.2f}-{high:.2f}) against {other} {_two(pair.first.f1)}: {gain}, {right}"


def objection(asked_for: str, *, current: str | None, targets: TargetChoice | None, dangerous: bool | None) -> str | None:
    """What speaks against a version that a person asks for by name; None where it has proved better than `current`.

    `targets`: the comparison on the same requests, None where there was none. `dangerous`: it flagged nearly everything when it served.
    """
    said = [f"{asked_for} flagged nearly every asset when it served"] if dangerous else []
    verdict = next((v for v in targets.ranking if v.version == asked_for), None) if targets else None
    if asked_for == current:
        said.append(f"{asked_for} is the version that this incident is about")
    elif verdict is None:
        why = f" ({targets.sentence})" if targets and not targets.ranking else ""
        other = current or "the serving version"
        said.append(f"Nobody knows whether {asked_for} is better: it was not compared with {other} on logged requests{why}")
    elif verdict.judged is not Judged.ACCEPTED and targets:
        said.append(f"Replay on {targets.rows:,} logged requests: {verdict.sentence}")
    return "; ".join(said) or None


def _never_saw(name: str, current: str, rows: Sequence[Prediction], known: Mapping[str, ModelVersion]) -> str | None:
    own = known[name].asset_types if name in known else None
    seen = known[current].asset_types if current in known else None
    if own is None:
        return None
    missing = sorted({p.asset_type for p in rows} - set(own))
    missing = [t for t in missing if seen is None or t in seen]  # nobody loses what the current version never had
    count = sum(p.asset_type in missing for p in rows)
    return f"it was never trained on asset type {', '.join(missing)}, {count} of {len(rows)} requests" if missing else None


@dataclass(frozen=True)
class Check:
    """One line of a verdict. `passed` None: not applicable, or not known."""

    name: str
    passed: bool | None
    sentence: str
    value: float | None = None


def segments(
    rows: Sequence[Prediction],
    truth: Sequence[bool],
    first_flags: Sequence[bool],
    second_flags: Sequence[bool],
    *,
    first: str,
    second: str,
    policy: DropPolicy,
    first_types: Sequence[str] | None = None,
    second_types: Sequence[str] | None = None,
) -> tuple[Check, ...]:
    """The second version against the first on each asset type; failed where worse beyond chance, corrected for the number of segments
    (Bonferroni). Without known failures a segment is not applicable. `..._types`: what a version was trained on, where known."""
    by_type: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        by_type.setdefault(row.asset_type, []).append(i)
    judged = [name for name, at in by_type.items() if any(truth[i] for i in at)]
    confidence = 1 - (1 - policy.confidence) / max(len(judged), 1)
    checks = []
    for name, at in sorted(by_type.items()):
        label, where = f"segment {name}", f"asset type {name}"
        if second_types is not None and name not in second_types and (first_types is None or name in first_types):
            checks.append(Check(label, False, f"{second} was never trained on {where}, {len(at)} of {len(rows)} requests"))
            continue
        if name not in judged:
            checks.append(Check(label, None, f"{where}: no known failure in {len(at)} requests, not applicable"))
            continue
        pair = compare([truth[i] for i in at], [first_flags[i] for i in at], [second_flags[i] for i in at], confidence=confidence)
        words = (
            f"{where}: F1 {_two(pair.first.f1)} with {first}, {_two(pair.second.f1)} with {second}, {pair.second.positives} known failures"
        )
        if pair.worse:
            checks.append(Check(label, False, f"{second} is worse than {first} on {words}", pair.gain))
        elif first_types is not None and name not in first_types and (second_types is None or name in second_types):
            checks.append(Check(label, True, f"{words}; {first} was never trained on it", pair.gain))
        else:
            checks.append(Check(label, True, words, pair.gain))
    return tuple(checks)


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
) -> CandidateVerdict:
    """May `candidate` take over from `champion`? On the rows of `replayed` that its training never saw, at the serving `threshold`.

    Promote: no check fails and its F1 is higher beyond chance. Do not promote: a check fails, or it is no better. Not enough evidence:
    too few known failures, or the better F1 can be chance.
    """
    rows, versions = _unseen(replayed, candidate.trained_to)
    own, theirs = versions.get(candidate.version), versions.get(champion.version)
    truth = [bool(p.outcome) for p in rows]
    if own is None or own.problem:
        why = own.problem if own else "the platform did not replay it"
        schema = Check("schema", False, f"{candidate.version} cannot score the requests: {why}")
        nothing = Confusion()
        return CandidateVerdict(Decision.DO_NOT_PROMOTE, schema.sentence, (schema,), len(rows), sum(truth), nothing, nothing)

    their_scores = theirs.scores if theirs and not theirs.problem else tuple(p.score for p in rows)
    flags, own_flags = [s >= threshold for s in their_scores], [s >= threshold for s in own.scores]
    pair = compare(truth, flags, own_flags, confidence=drops.confidence)
    low, high = f1_interval(pair.second, drops.confidence)
    words = gain_words(candidate.version, champion.version, pair, low, high)
    checks = [
        Check("f1", pair.better or (None if (pair.gain or 0.0) > 0 else False), words, pair.gain),
        *(_rate(name, champion.version, candidate.version, pair, drops) for name in ("precision", "recall")),
        *segments(
            rows, truth, flags, own_flags, first=champion.version, second=candidate.version, policy=drops,
            first_types=champion.asset_types, second_types=candidate.asset_types,
        ),
        _calibration(truth, own.scores, their_scores, policy),
        _schema(champion, candidate),
        _size(own, policy),
        _latency(own, theirs, policy),
    ]  # fmt: skip
    failed = [c for c in checks if c.passed is False and c.name != "f1"]
    positives, span = sum(truth), f"on {len(rows)} requests after {candidate.trained_to:%Y-%m-%d %H:%M:%S} UTC"
    if positives < policy.min_positives:
        if hard := [c for c in failed if c.name in ("schema", "size")]:  # these need no failures to be known
            decision, sentence = Decision.DO_NOT_PROMOTE, "; ".join(c.sentence for c in hard)
        else:
            decision = Decision.NOT_ENOUGH_EVIDENCE
            sentence = f"only {positives} known failures {span}, {policy.min_positives} needed: wait for outcomes, or hold out more"
    elif failed:
        decision, sentence = Decision.DO_NOT_PROMOTE, f"{words}, {span}; {'; '.join(c.sentence for c in failed)}"
    elif pair.better:
        decision, sentence = Decision.PROMOTE, f"{words}, {span}"
    elif (pair.gain or 0.0) <= 0:
        decision, sentence = Decision.DO_NOT_PROMOTE, f"{candidate.version} is no better: {words}, {span}"
    else:
        decision, sentence = Decision.NOT_ENOUGH_EVIDENCE, f"{candidate.version} may be better, but chance explains it: {words}, {span}"
    return CandidateVerdict(decision, sentence, tuple(checks), len(rows), positives, pair.first, pair.second)


def _unseen(replayed: Replayed, trained_to: datetime) -> tuple[tuple[Prediction, ...], dict[str, VersionReplay]]:
    """Rows from `trained_to` on, and every version's scores for those."""
    keep = [i for i, p in enumerate(replayed.rows) if p.at >= trained_to]
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


def _calibration(truth: Sequence[bool], scores: Sequence[float], others: Sequence[float], policy: Retraining) -> Check:
    """Expected calibration error (ten equal bins; Naeini et al. 2015) within the limit, and a Brier score (Brier 1950) better than
    always giving the share of failures: a model of rare events is easily calibrated on average while it knows nothing."""
    if not truth:
        return Check("calibration", None, "calibration: no outcomes known")
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
    more, fewer = (sorted(set(a.features) - set(b.features)) for a, b in ((candidate, champion), (champion, candidate)))
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


def compare_shadow(rows: Sequence[Prediction], version: str, threshold: float, policy: Retraining, drops: DropPolicy) -> ShadowVerdict:
    """Did `version` hold up in the shadow of live traffic? Of `rows` those count that it scored too and whose outcome is known.

    Validation has shown that it is better; the shadow must not contradict: refused when worse beyond chance, over all or on a segment;
    passed when its F1 is at least as high; undecided while failures are few, or while a lower F1 can be chance.
    """
    seen = [p for p in rows if p.shadow_version == version and p.shadow_score is not None and p.outcome is not None]
    truth = [bool(p.outcome) for p in seen]
    flags, own = [p.score >= threshold for p in seen], [(p.shadow_score or 0.0) >= threshold for p in seen]
    pair = compare(truth, flags, own, confidence=drops.confidence)
    champion = ", ".join(sorted({p.version for p in seen})) or "the serving version"
    positives = sum(truth)
    low, high = f1_interval(pair.second, drops.confidence)
    words = f"in the shadow of {len(seen)} live requests {gain_words(version, champion, pair, low, high)}"

    def verdict(passed: bool | None, sentence: str) -> ShadowVerdict:
        return ShadowVerdict(passed, sentence, len(seen), positives, pair.first, pair.second)

    if positives < policy.shadow_min_positives or pair.gain is None:
        return verdict(None, f"too early to say: {positives} of {policy.shadow_min_positives} failures known in the shadow of live traffic")
    worse = [c.sentence for c in segments(seen, truth, flags, own, first=champion, second=version, policy=drops) if c.passed is False]
    if pair.worse or worse:
        return verdict(False, "; ".join([words, *worse]))
    return verdict(True if pair.gain >= 0 else None, words if pair.gain >= 0 else f"lower, but chance explains it: {words}")


def promotion_fell(
    compared: Confusion, live: Confusion, policy: DropPolicy, *, version: str = "the promoted version"
) -> tuple[bool | None, str]:
    """Has a promoted version's live F1 fallen against the counts it was promoted on? None: too few known failures to say.

    Fell: by more than `f1_medium` and beyond chance. The counts are of different rows, so both intervals count
    (`paired.difference`), unlike with a known baseline.
    """
    graded = grade_drop(compared, live, policy)
    gain, low, high = difference(compared, live, confidence=policy.confidence)
    if graded.evidence is Evidence.INSUFFICIENT or gain is None:
        return None, f"{version}: {graded.reason}"
    words = f"{version}: F1 {_two(compared.f1)} when promoted, {_two(live.f1)} live: {gain:+.2f} ({low:+.2f} to {high:+.2f})"
    fell = high < 0 and (live.f1 or 0.0) < (compared.f1 or 0.0) * (1 - policy.f1_medium)
    return fell, f"{words}, {'a fall beyond chance' if fell else 'no fall beyond chance'}"


def _two(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"
