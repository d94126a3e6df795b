"""Ground truth that was changed after it was reported: how much, by whom, and whether figures still rest on what was first reported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, Rewritten, WindowMetrics
from mlrunbook.domain.policy.judging import OutcomesPolicy

MOST_NAMED = 3


@dataclass(frozen=True)
class RewriteVerdict:
    """`beyond` the policy's limits: what outcomes say is no ground for an automatic change. None: the platform does not say."""

    beyond: bool | None
    sentence: str


def judge_rewrites(metrics: ModelMetrics, policy: OutcomesPolicy) -> RewriteVerdict:
    """Beyond a limit: more in a day than allowed, more than a share of a window, or so many that a window's figures differ from what was
    first reported: thirty outcomes of a thousand are few, and may be all failures there were."""
    lately, now, before = metrics.rewritten_lately, metrics.current.rewritten, metrics.baseline.rewritten
    if lately is None and now is None and before is None:
        return RewriteVerdict(None, "the platform does not say whether outcomes were rewritten")
    found = [
        *(_of_a_day(lately, policy) if lately else ()),
        *(_of_a_window("the window", now, policy) if now else ()),
        *(_of_a_window("the baseline", before, policy) if before else ()),
    ]
    if found:
        return RewriteVerdict(True, f"outcomes were rewritten: {'; '.join(found)}")
    count = lately.count if lately else 0
    return RewriteVerdict(False, f"{count} outcomes were rewritten in the last day" if count else "outcomes stand as first reported")


def as_first_reported(metrics: ModelMetrics) -> ModelMetrics:
    """The same windows on the outcomes as they were first reported. By group or block of time that is not known: left out."""

    def before(window: WindowMetrics) -> WindowMetrics:
        if not window.rewritten or not window.rewritten.count:
            return window
        unknown: dict[str, Any] = {f"{part}by_asset_type": {} for part in ("", "blocks_", "assets_")}
        return replace(window, tally=window.rewritten.first, by_risk_level={}, blocks=(), **unknown)

    return replace(metrics, current=before(metrics.current), baseline=before(metrics.baseline), history=None)


def _of_a_day(seen: Rewritten, policy: OutcomesPolicy) -> Iterator[str]:
    if seen.count > policy.most_rewritten_a_day or _is_large_share(seen, policy):
        yield f"{_counted(seen)} in the last day{_between(seen)}; {_figures(seen)}"


def _of_a_window(what: str, seen: Rewritten, policy: OutcomesPolicy) -> Iterator[str]:
    moved = bool(seen.count) and _moved(seen.first, seen.now, policy.most_figures_moved)
    if moved or _is_large_share(seen, policy):
        yield f"{_counted(seen)} of {what}; {_figures(seen)}"


def _is_large_share(seen: Rewritten, policy: OutcomesPolicy) -> bool:
    return seen.count >= policy.least_rewritten and seen.count > policy.most_rewritten_share * seen.of


def _moved(first: Confusion, now: Confusion, by: float) -> bool:
    """Whether F1, precision or recall differ by more than `by`, relative to the larger one."""
    pairs = ((first.f1, now.f1), (first.precision, now.precision), (first.recall, now.recall))
    return any(abs((a or 0.0) - (b or 0.0)) > by * max(a or 0.0, b or 0.0) for a, b in pairs)


def _counted(seen: Rewritten) -> str:
    """
    >>> _counted(Rewritten(500, 500, {"another caller": 500}))
    "500 of 500 by 'another caller'"
    """
    named = sorted(seen.by.items(), key=lambda one: (-one[1], one[0]))
    names = [f"{name!r}" + (f" ({count})" if len(named) > 1 else "") for name, count in named[:MOST_NAMED]]
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return f"{seen.count} of {seen.of} by {', '.join(names)}{more}"


def _between(seen: Rewritten) -> str:
    return f", of predictions from {seen.oldest:%Y-%m-%d} to {seen.newest:%Y-%m-%d}" if seen.oldest and seen.newest else ""


def _figures(seen: Rewritten) -> str:
    def f1(counts: Confusion) -> str:
        return "undefined" if counts.f1 is None else f"{counts.f1:.2f}"

    return f"F1 on the first-reported outcomes {f1(seen.first)}, on the current {f1(seen.now)}"
