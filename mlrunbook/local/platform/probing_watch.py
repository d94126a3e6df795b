"""Whether somebody probes a model, looked at from the newest rows of the prediction log every few seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Engine

from mlrunbook.base.db import transaction
from mlrunbook.domain.detection.alert_rules import DRIFT_PARTS, spread
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.evaluation.probing import Probing, judge_probing
from mlrunbook.domain.observed import Prediction
from mlrunbook.local.platform import predictions

EVERY, REFERENCE_EVERY = timedelta(seconds=5), timedelta(hours=1)
RECENT = timedelta(minutes=10)
ROWS = 2000  # about 50 ms of work


class ProbingWatch:
    """Called by the alert loop and by scrapes; whoever comes first does the work."""

    def __init__(self, on: Engine, *, clock: Callable[[], datetime]) -> None:
        self._on, self._clock = on, clock
        self._lock = threading.Lock()
        self._last: dict[str, tuple[datetime, Probing]] = {}
        self._reference: dict[str, tuple[datetime, list[Prediction]]] = {}

    def __call__(self, figures: ModelMetrics) -> Probing:
        with self._lock:
            model, now = figures.model, self._clock()
            if model not in self._last or abs(now - self._last[model][0]) >= EVERY:  # a clock that was set back too
                with transaction(self._on) as conn:
                    recent = predictions.recent(conn, model=model, limit=ROWS, since=now - RECENT, until=now)
                self._last[model] = (now, judge_probing(recent, self._usual(figures, now)))
            return self._last[model][1]

    def _usual(self, figures: ModelMetrics, now: datetime) -> list[Prediction]:
        """A sample from all over the baseline, kept for an hour once it holds any rows."""
        at, rows = self._reference.get(figures.model, (now, []))
        if rows and abs(now - at) < REFERENCE_EVERY:
            return rows
        before = figures.baseline
        with transaction(self._on) as conn:

            def read(since: datetime, until: datetime) -> list[Prediction]:
                return predictions.recent(conn, model=figures.model, limit=ROWS // DRIFT_PARTS, since=since, until=until)

            rows = spread(read, before.since, before.until)
        if before.predictions:
            self._reference[figures.model] = (now, rows)
        return rows
