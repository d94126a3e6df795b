"""A model's metrics, read so that enough outcomes speak: `domain.evaluation.outcome_window` decides which."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from mlrunbook.domain.evaluation.outcome_window import Span, baseline_of, holds_enough, judged_on, since_change, wider_window
from mlrunbook.domain.evaluation.performance import ModelMetrics, WindowMetrics
from mlrunbook.response.measurement import recent_changes
from mlrunbook.response.tried import or_none
from mlrunbook.response.world import World


def with_enough_outcomes(world: World, hour: ModelMetrics, version: str | None, *, before: datetime | None = None) -> ModelMetrics:
    """`hour` as it is where it holds enough outcomes, or nothing better can be had. `before`: later changes do not count as one that the
    window must begin at."""
    now, model = world.now(), hour.model
    policy = world.policy.for_model(model).severity.window
    if holds_enough(hour.current, policy):
        return hour

    def read(span: Span) -> ModelMetrics | None:
        return or_none(
            "the metrics of a longer window", lambda: world.platform.metrics(model, since=span.since, until=span.until, version=version)
        )

    usual = _usual(hour, lambda: read(Span(now - timedelta(days=policy.most_days), now)))
    window = wider_window(usual, now, policy) if usual else None
    if window is None or window.since >= hour.current.since:
        return hour
    window = since_change(window, _last_change(world, model, since=window.since, before=before or now))
    wide = read(Span(window.since, window.until)) if window else None
    if window is None or wide is None or wide.current.labelled <= hour.current.labelled:
        return hour
    longer = baseline_of(window, wide)
    earlier = read(longer) if longer else None
    return judged_on(hour, wide, earlier.current if earlier and earlier.current.labelled else None, window)


def _usual(hour: ModelMetrics, long_look: Callable[[], ModelMetrics | None]) -> WindowMetrics | None:
    """What says how fast outcomes come: the platform's baseline, or a longer look where none of its outcomes has come yet."""
    if hour.baseline.labelled:
        return hour.baseline
    found = long_look()
    return found.current if found else None


def _last_change(world: World, model: str, *, since: datetime, before: datetime) -> datetime | None:
    """Predictions from before it say nothing of the model as it is now."""
    changes = or_none("the change history", lambda: recent_changes.that_bound_windows(world, model, since=since)) or ()
    return max((change.at for change in changes if change.at <= before), default=None)
