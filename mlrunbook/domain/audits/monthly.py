"""Monthly: "Conduct bias and fairness assessment"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import comb

from mlrunbook.domain.audits.section import (
    Estimate,
    Intervals,
    Opens,
    Section,
    Table,
    Verdict,
    difference,
    figure,
    listed,
    missing,
    share,
)
from mlrunbook.domain.evaluation.fairness import Fairness, FairnessVerdict, figures_of, judge_groups
from mlrunbook.domain.evaluation.performance import Confusion, percent, wilson, z_value
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.observed import Missing
from mlrunbook.domain.plural import counted
from mlrunbook.domain.policy.policy import Policy

BIAS = Opens(IncidentType.BIAS_FAIRNESS, Severity.MEDIUM)
Groups = Mapping[str, Confusion]


@dataclass(frozen=True)
class MonthlyFacts:
    """Outcomes by asset type in the period, and in the one before it. `trained_on`: the asset types that the serving version has seen in
    training; None: not recorded. `version`: that one's name."""

    now: Groups | Missing
    before: Groups | Missing
    trained_on: Sequence[str] | Missing | None = None
    version: str = ""


def monthly(facts: MonthlyFacts, policy: Policy) -> tuple[Section, ...]:
    return (
        performance_by_group(facts.now, facts.before, policy),
        _since_the_last(facts.now, facts.before, policy),
        _parity(facts.now, facts.before, policy, "recall", "Failures caught, by asset type"),
        _parity(facts.now, facts.before, policy, "precision", "Flags that were right, by asset type"),
        _flagged(facts.now, policy),
        _trained_on(facts),
    )


def performance_by_group(now: Groups | Missing, before: Groups | Missing, policy: Policy) -> Section:
    key, title = "fairness", "F1 by asset type"
    if isinstance(now, Missing):
        return missing(key, title, now)
    if not now:
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, _NO_GROUP)
    found = judge_groups(now, policy.fairness)
    was = {} if isinstance(before, Missing) else before
    estimates = []
    for name, f in found.groups.items():
        low, high = f.f1_interval or (0.0, 1.0)
        earlier = figures_of(was.get(name, Confusion()), policy.fairness)
        estimates.append(Estimate(name, f.f1, low, high, earlier.f1))
    rows = tuple(
        (
            name,
            str(f.n),
            str(f.positives),
            *(_with_interval(getattr(f, m), getattr(f, f"{m}_interval")) for m in ("f1", "precision", "recall")),
        )
        for name, f in found.groups.items()
    )
    table = Table("Groups", ("Asset type", "Outcomes", "Failures", "F1", "Precision", "Recall"), rows)
    return Section(key, title, _of(found), found.sentence, (Intervals("F1 by asset type", tuple(estimates), _LAST),), (table,), BIAS)


_NO_GROUP = "the platform knows no outcome by asset type in this period"
_LAST = "the period before"


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    return "not judged" if value is None or interval is None else f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"


def _of(found: FairnessVerdict) -> Verdict:
    return {Fairness.FAIR: Verdict.PASS, Fairness.UNFAIR: Verdict.FAIL}.get(found.verdict, Verdict.NOT_ENOUGH_DATA)


def _since_the_last(now: Groups | Missing, before: Groups | Missing, policy: Policy) -> Section:
    """Are the groups further apart than in the period before? A gap that the assets explain, because one type fails more rarely, is in
    both."""
    key, title = "change", "Gaps since the period before"
    if isinstance(now, Missing):
        return missing(key, title, now)
    if isinstance(before, Missing):
        return missing(key, title, before)
    if not now or not before:
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, "one of the two periods has no outcome by asset type: nothing to compare")
    found = judge_groups(now, policy.fairness, before)
    rows = tuple((name, *_moved(figures_of(before.get(name, Confusion()), policy.fairness).f1, f.f1)) for name, f in found.groups.items())
    sentence = found.sentence.replace("the baseline", _LAST)
    return Section(key, title, _of(found), sentence, (), (Table("F1", ("Asset type", "Before", "Now", "Change"), rows),), BIAS)


def _moved(was: float | None, is_: float | None) -> tuple[str, str, str]:
    return figure(was), figure(is_), figure(None if was is None or is_ is None else is_ - was, "{:+.2f}")


def _parity(now: Groups | Missing, before: Groups | Missing, policy: Policy, key: str, title: str) -> Section:
    """The share of failures caught (equal opportunity, Hardt et al. 2016) and of flags that were right (predictive parity, Chouldechova
    2017) must not differ between groups by more than `max_gap`. Beyond chance: the interval of the difference (Newcombe 1998) excludes 0,
    at a confidence divided by the pairs, and by the two questions (Bonferroni)."""
    if isinstance(now, Missing):
        return missing(key, title, now)
    if not now:
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, _NO_GROUP)
    limits, z = policy.fairness, z_value(policy.fairness.confidence)
    was = {} if isinstance(before, Missing) else before
    shares = {name: _share(counts, key) for name, counts in sorted(now.items())}
    judged = {name: of for name, of in shares.items() if min(now[name].positives, of[1]) >= limits.min_positives}
    estimates = []
    for name, (part, n) in shares.items():
        low, high = wilson(part, n, z) if n else (0.0, 1.0)
        earlier, m = _share(was.get(name, Confusion()), key)
        value = part / n if name in judged else None
        estimates.append(Estimate(name, value, low, high, earlier / m if m else None))
    charts = (Intervals(title, tuple(estimates), _LAST),) if shares else ()
    rows = tuple((e.name, share(e.value), f"{share(e.low)} to {share(e.high)}", share(e.before)) for e in estimates)
    tables = (Table("Shares", ("Asset type", "Share", f"{percent(limits.confidence)} interval", "Before"), rows),) if rows else ()
    if len(judged) < 2:
        what = "known failures" if key == "recall" else "known failures and flags"
        sentence = f"{len(judged)} of {counted(len(shares), 'group')} with {limits.min_positives} {what}: nothing to compare"
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, sentence, charts, tables)
    level = 1 - (1 - limits.confidence) / (2 * comb(len(judged), 2))
    gaps = [(*difference(judged[a], judged[b], level), a, b) for a, b in permutations(judged, 2)]
    beyond = [gap for gap in gaps if gap[0] > limits.max_gap and gap[1] > 0]
    left = [name for name in shares if name not in judged]
    not_judged = f"; not judged: {listed(left)}" if left else ""
    size, low, high, more, less = max(beyond or gaps)
    words = f"{more} {share(_ratio(judged[more]))} and {less} {share(_ratio(judged[less]))}: {size:.2f} apart"
    if beyond:
        sentence = f"{words} (interval {low:.2f} to {high:.2f}), over {limits.max_gap:.2f}{not_judged}"
        return Section(key, title, Verdict.FAIL, sentence, charts, tables, BIAS)
    if size > limits.max_gap:
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, f"{words}, but chance may explain it{not_judged}", charts, tables)
    verdict = Verdict.NOT_ENOUGH_DATA if left else Verdict.PASS
    return Section(key, title, verdict, f"{words} at most, within {limits.max_gap:.2f}{not_judged}", charts, tables)


def _share(counts: Confusion, key: str) -> tuple[int, int]:
    return (counts.tp, counts.positives) if key == "recall" else (counts.tp, counts.tp + counts.fp)


def _ratio(of: tuple[int, int]) -> float:
    return of[0] / of[1]


def _flagged(now: Groups | Missing, policy: Policy) -> Section:
    """Is the model's burden in proportion? It should flag each group about as often as it fails: less leaves failures to the others to
    find, more sends people out for nothing. Judged by the interval of the flagged share: the group's share of failures times or divided
    by `flagged_factor` must be in reach of it."""
    key, title = "flagged", "Assets flagged against assets that fail"
    if isinstance(now, Missing):
        return missing(key, title, now)
    limits, z = policy.fairness, z_value(policy.fairness.confidence)
    factor = policy.audits.flagged_factor
    judged = {name: c for name, c in sorted(now.items()) if c.positives >= limits.min_positives}
    left = [name for name in now if name not in judged]
    rows, out = [], []
    for name, c in judged.items():
        flagged, failing = (c.tp + c.fp) / c.n, c.positives / c.n
        low, high = wilson(c.tp + c.fp, c.n, z)
        if low > failing * factor or high < failing / factor:
            out.append(f"{name} is flagged {flagged / failing:.1f} times as often as it fails")
        rows.append((name, share(flagged), f"{share(low)} to {share(high)}", share(failing), f"{flagged / failing:.2f}"))
    columns = ("Asset type", "Flagged", f"{percent(limits.confidence)} interval", "Failed", "Flagged for each failure")
    tables = (Table("Shares of all outcomes", columns, tuple(rows)),) if rows else ()
    if out:
        return Section(key, title, Verdict.FAIL, f"{', '.join(out)}: out of proportion (a factor of {factor:g})", (), tables, BIAS)
    if not judged or left:
        few = f"with fewer than {limits.min_positives} known failures: {listed(sorted(left))}" if left else _NO_GROUP
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, f"not judged, {few}" if left else few, (), tables)
    return Section(key, title, Verdict.PASS, f"every group is flagged within a factor of {factor:g} of how often it fails", (), tables)


def _trained_on(facts: MonthlyFacts) -> Section:
    key, title = "coverage", "Asset types known from training"
    if isinstance(facts.now, Missing):
        return missing(key, title, facts.now)
    if isinstance(facts.trained_on, Missing):
        return missing(key, title, facts.trained_on)
    if facts.trained_on is None:
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, f"the registry does not say what {facts.version or 'the model'} was trained on")
    if not facts.now:
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, _NO_GROUP)
    unknown = sorted(set(facts.now) - set(facts.trained_on))
    rows = tuple((name, str(c.n), "no" if name in unknown else "yes") for name, c in sorted(facts.now.items()))
    tables = (Table("Asset types", ("Asset type", "Outcomes", "In the training data"), rows),)
    if unknown:
        sentence = f"{facts.version} scores asset types it was not trained on: {listed(unknown)}"
        return Section(key, title, Verdict.FAIL, sentence, (), tables, BIAS)
    return Section(key, title, Verdict.PASS, f"{facts.version} was trained on all of {listed(sorted(facts.now))}", (), tables)
