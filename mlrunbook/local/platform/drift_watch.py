"""Whether a model's features moved, looked at from the prediction log at most every minute: the rows are many, and drift is slow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Engine

from mlrunbook.base.db import transaction
from mlrunbook.domain.detection.alert_rules import DRIFT_ROWS, drift_policy, spread
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.investigation.findings import Finding, State, feature_distributions
from mlrunbook.domain.observed import Prediction
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.local.platform import predictions

EVERY = timedelta(minutes=1)


class DriftWatch:
    """Called by the alert loop and by scrapes; whoever comes first in a minute does the work."""

    def __init__(self, on: Engine, *, clock: Callable[[], datetime], policy: Policy) -> None:
        self._on, self._clock, self._policy = on, clock, policy
        self._lock = threading.Lock()
        self._last: dict[str, tuple[datetime, Finding]] = {}
        self._suspect_since: dict[str, datetime] = {}

    def __call__(self, model: str, figures: ModelMetrics) -> tuple[Finding, timedelta]:
        """The checklist's finding on the feature distributions of the current window against the baseline's, and how long it has been
        suspect at every look."""
        with self._lock:
            now = self._clock()
            if model not in self._last or abs(now - self._last[model][0]) >= EVERY:  # a clock that was set back too
                found = self._look(figures)
                self._last[model] = (now, found)
                if found.state is State.SUSPECT:
                    self._suspect_since[model] = min(self._suspect_since.get(model, now), now)
                else:
                    self._suspect_since.pop(model, None)
            return self._last[model][1], max(timedelta(0), now - self._suspect_since.get(model, now))

    def _look(self, figures: ModelMetrics) -> Finding:
        with transaction(self._on) as conn:

            def read(since: datetime, until: datetime) -> list[Prediction]:
                return predictions.recent(conn, model=figures.model, limit=DRIFT_ROWS, since=since, until=until)

            now, before = figures.current, figures.baseline
            rules = drift_policy(self._policy.for_model(figures.model).alerts)
            return feature_distributions(spread(read, now.since, now.until), spread(read, before.since, before.until), rules)
