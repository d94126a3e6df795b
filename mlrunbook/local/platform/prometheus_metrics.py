"""What Prometheus reads of the platform (`GET /metrics`): the figures the automated alerts are judged by, one model a series.

They come from the same queries as the platform's own evaluation, counted anew at most every REFRESH_S however many scrape. A figure
that nobody can tell is not exported, so that a rule on it does not fire. Names: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from fastapi import Depends, FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Scope
from mlrunbook.base.web import require
from mlrunbook.domain.detection.alert_rules import RULES
from mlrunbook.domain.evaluation.performance import WindowMetrics
from mlrunbook.local.platform import alerts

REFRESH_S = 2.0
CURRENT, BASELINE = "current", "baseline"
_VERSIONED = ("model", "model_version")

# name -> (help, labels). Counts and shares of a window are gauges: they fall when old predictions leave it.
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "model_window_predictions": (
        "Predictions of the window by outcome: tp, fp, fn, tn, unknown. Current: last 60 min of the version that predicts now",
        ("model", "model_version", "window", "outcome"),
    ),
    "model_window_flagged_ratio": ("Share of the current window's predictions labelled high-risk", _VERSIONED),
    "model_window_null_ratio": ("Share of nulls in the current window's worst feature", _VERSIONED),
    "model_window_null_rise_ratio": ("How much more that is than in the baseline", _VERSIONED),
    "model_window_latency_p95_seconds": ("95th percentile of inference time in the current window", _VERSIONED),
    "model_window_error_ratio": ("Share of the predictions asked for in the current window that failed", _VERSIONED),
    "model_features_drifted": ("Whether feature distributions moved against the baseline: 1 yes, 0 no", ("model",)),
    "model_feature_store_up": ("Whether the model server can read features: 1 yes, 0 no", ("model",)),
    "model_server_up": ("Whether the model server answers: 1 yes, 0 no", ("model",)),
    "model_server_wanted": ("Whether a model server shall run: 0 when it was stopped on purpose", ("model",)),
    "model_alert_reading": ("The figure an automated alert compares with its limit", ("model", "alert", "level")),
}


class PlatformCollector(Collector):
    """`health(model)` is what the model server says of itself."""

    def __init__(
        self,
        on: Engine,
        *,
        clock: Callable[[], datetime],
        health: Callable[[str], Mapping[str, Any] | None],
        stopped_on_purpose: Callable[[str], bool],
        watched: alerts.Watched,
    ) -> None:
        self._on, self._clock, self._health, self._stopped = on, clock, health, stopped_on_purpose
        self._watched = watched
        self._lock = threading.Lock()
        self._last: tuple[datetime, list[GaugeMetricFamily]] | None = None

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Without it the registry would collect once when it takes this collector."""
        return (GaugeMetricFamily(name, help_, labels=labels) for name, (help_, labels) in FAMILIES.items())

    def collect(self) -> Iterable[GaugeMetricFamily]:
        with self._lock:  # scrapes at the same time share one look
            now = self._clock()
            if self._last is None or now - self._last[0] >= timedelta(seconds=REFRESH_S):
                self._last = (now, self._look(now))
            return self._last[1]

    def _look(self, now: datetime) -> list[GaugeMetricFamily]:
        families = {family.name: family for family in self.describe()}

        def add(name: str, value: float | None, *labels: str) -> None:
            if value is not None:
                families[name].add_metric(labels, float(value))

        with transaction(self._on) as conn:
            everything = self._watched.counted(conn, now)
        for counted in everything:
            version, figures = counted.version, counted.figures
            model, current = figures.model, figures.current
            health, wanted = self._health(model), not self._stopped(model)
            server = alerts.server_seen(health, down_for=timedelta(0) if wanted and health is None else None, now=now)
            seen = self._watched.seen(counted, server)
            for window, part, of in ((CURRENT, current, version), (BASELINE, figures.baseline, "")):
                for outcome, count in _by_outcome(part).items():
                    add("model_window_predictions", count, model, of, window, outcome)
            add("model_window_flagged_ratio", current.flagged_share, model, version)
            add("model_window_null_ratio", current.null_rate, model, version)
            add("model_window_null_rise_ratio", figures.null_rise, model, version)
            add("model_window_latency_p95_seconds", _seconds(current.latency_p95_ms), model, version)
            add("model_window_error_ratio", current.error_rate, model, version)
            if seen.drift is not None and seen.drift.state != "unknown":
                add("model_features_drifted", seen.drift.state == "suspect", model)
            if server.features_known:
                add("model_feature_store_up", server.features_down_for is None, model)
            add("model_server_up", health is not None, model)
            add("model_server_wanted", wanted, model)
            rules = self._watched.policy.for_model(model).alerts
            for rule in RULES:
                if reading := rule.read(seen, rules):
                    add("model_alert_reading", reading.value, model, rule.alert, rule.level.value)
        return list(families.values())


def expose(app: FastAPI, collector: PlatformCollector) -> None:
    """`GET /metrics`, for a token of scope read like the platform's other reads."""
    registry = CollectorRegistry()
    registry.register(collector)
    registry.register(app.state.edge.refused)

    @app.get("/metrics", dependencies=[Depends(require(Scope.READ))])
    def prometheus() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _by_outcome(window: WindowMetrics) -> dict[str, int]:
    counts = window.confusion
    known = {"tp": counts.tp, "fp": counts.fp, "fn": counts.fn, "tn": counts.tn}
    return known | {"unknown": window.predictions - counts.n}


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
