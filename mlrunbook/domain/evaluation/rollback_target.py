"""Which version to roll back to.

Every version is judged on the same requests with known outcomes, at the same threshold, against the version in question. A verdict
comes with its sentence; too few known failures is an answer of its own, never a yes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from mlrunbook.domain.evaluation.paired import compare
from mlrunbook.domain.evaluation.performance import f1_interval
from mlrunbook.domain.evaluation.version_comparison import SideBySide, segments, two
from mlrunbook.domain.observed import ModelVersion, Prediction, Replayed, VersionReplay
from mlrunbook.domain.policy.judging import F1, DropPolicy
from mlrunbook.domain.records import Record, Recorded


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


@dataclass(frozen=True)
class RollbackTargets(TargetChoice, Recorded, key=Record.ROLLBACK_TARGETS):
    """The choice, and the `threshold` it was made at (None: nothing could be replayed)."""

    threshold: float | None = None


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
    bench = _bench(replayed, current, threshold, _Terms(baseline_f1, policy, known or {}))
    judged = [_judge(bench, candidate) for candidate in replayed.versions if candidate.version != current]
    accepted = [one for one in judged if one.verdict.judged is Judged.ACCEPTED]
    best = _newest_of_the_best(accepted, bench).verdict if accepted else None
    order = list(Judged)
    ranking = tuple(
        sorted((one.verdict for one in reversed(judged)), key=lambda v: (order.index(v.judged), -(v.f1 or 0.0)))  # of equal ones the newest
    )
    open_ = best is None and any(v.judged is Judged.NOT_ENOUGH_EVIDENCE for v in ranking)
    positives = sum(bool(p.outcome) for p in bench.rows)
    words = f"on {len(bench.rows)} requests with {positives} known failures"
    sentence = _sentence(current, best, ranking, words)
    return TargetChoice(best.version if best else None, ranking, sentence, open_, len(bench.rows), positives)


def _sentence(current: str, best: TargetVerdict | None, ranking: Sequence[TargetVerdict], words: str) -> str:
    if best:
        return f"{best.version} is the target, {words}: {best.sentence}"
    if not ranking:
        return f"there is no other version than {current} to go back to"
    said = f"{words}: {'; '.join(v.sentence for v in ranking)}"
    if any(v.judged is Judged.NOT_ENOUGH_EVIDENCE for v in ranking):
        return f"no version is proven better than {current}, {said}"
    return f"every version is refused, {said}"


@dataclass(frozen=True)
class _Terms:
    baseline_f1: float | None
    policy: DropPolicy
    known: Mapping[str, ModelVersion]


@dataclass(frozen=True)
class _Bench:
    """The version in question on the rows that count. `at`: their places in the replay."""

    current: str
    threshold: float
    at: Sequence[int]
    rows: Sequence[Prediction]
    flags: Sequence[bool]
    terms: _Terms


@dataclass(frozen=True)
class _Judgement:
    """`alarms`: by the row's place, which of the rows that its training never saw the version flags."""

    verdict: TargetVerdict
    alarms: Mapping[int, bool] = field(default_factory=dict)


def _bench(replayed: Replayed, current: str, threshold: float, terms: _Terms) -> _Bench:
    found = next((v for v in replayed.versions if v.version == current and not v.problem), None)
    at = [i for i, p in enumerate(replayed.rows) if found or p.version == current]
    rows = tuple(replayed.rows[i] for i in at)
    scores = [found.scores[i] if found else replayed.rows[i].score for i in at]
    return _Bench(current, threshold, at, rows, [s >= threshold for s in scores], terms)


def _judge(bench: _Bench, candidate: VersionReplay) -> _Judgement:
    name, known = candidate.version, bench.terms.known
    if problem := candidate.problem or _never_saw(name, bench.current, bench.rows, known):
        return _Judgement(TargetVerdict(name, Judged.REFUSED, f"{name} does not qualify: {problem}"))
    fair = [i for i, p in enumerate(bench.rows) if name not in known or p.at >= known[name].unseen_from]
    flags = [candidate.scores[bench.at[i]] >= bench.threshold for i in fair]
    seen = SideBySide([bench.rows[i] for i in fair], bench.current, name, [bench.flags[i] for i in fair], flags)
    return _Judgement(_as_target(seen, bench.terms), dict(zip(fair, flags, strict=True)))


def _newest_of_the_best(accepted: Sequence[_Judgement], bench: _Bench) -> _Judgement:
    """`accepted` in the order of `Replayed.versions`: the newest last."""
    top = max(accepted, key=lambda one: one.verdict.f1 or 0.0)
    for one in reversed(accepted):
        both = sorted(top.alarms.keys() & one.alarms.keys())
        truth = [bool(bench.rows[i].outcome) for i in both]
        ours, theirs = [top.alarms[i] for i in both], [one.alarms[i] for i in both]
        if not compare(truth, ours, theirs, confidence=bench.terms.policy.confidence).worse:
            return one
    return top


def _as_target(seen: SideBySide, terms: _Terms) -> TargetVerdict:
    policy, baseline_f1, name, current = terms.policy, terms.baseline_f1, seen.second, seen.first
    pair = seen.compare(policy.confidence)
    f1, (low, high) = pair.second.f1, f1_interval(pair.second, policy.confidence)
    numbers = TargetVerdict(name, Judged.REFUSED, "", f1, low, high, pair.gain, pair.low, pair.high, pair.p_value)
    words = seen.words(pair, policy.confidence)

    def verdict(judged: Judged, why: str) -> TargetVerdict:
        return replace(numbers, judged=judged, sentence=why)

    if pair.second.positives < policy.min_positives or pair.gain is None:
        short = f"only {pair.second.positives} known failure(s), {policy.min_positives} needed"
        return verdict(Judged.NOT_ENOUGH_EVIDENCE, f"{name} cannot be judged: {short}")
    if worse := [s.sentence for s in segments(seen, policy) if s.passed is False]:
        return verdict(Judged.REFUSED, "; ".join(worse))
    if pair.gain <= 0:
        return verdict(Judged.REFUSED, f"{name} is no better than {current} (F1 {two(f1)} vs {two(pair.first.f1)}): {words}")
    if baseline_f1 and (f1 or 0.0) < baseline_f1 * (1 - policy.most(F1)) and high < baseline_f1:
        return verdict(Judged.REFUSED, f"{name} would not restore service: {words}, the baseline is {baseline_f1:.2f}")
    if not pair.better:
        return verdict(Judged.NOT_ENOUGH_EVIDENCE, f"{name} may be better, but chance explains it: {words}")
    return verdict(Judged.ACCEPTED, words)


def _never_saw(name: str, current: str, rows: Sequence[Prediction], known: Mapping[str, ModelVersion]) -> str | None:
    own = known[name].asset_types if name in known else None
    seen = known[current].asset_types if current in known else None
    if own is None:
        return None
    missing = sorted({p.asset_type for p in rows} - set(own))
    missing = [t for t in missing if seen is None or t in seen]  # nobody loses what the current version never had
    count = sum(p.asset_type in missing for p in rows)
    return f"it was never trained on asset type {', '.join(missing)}, {count} of {len(rows)} requests" if missing else None


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
