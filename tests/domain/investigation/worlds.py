"""A fleet whose failures follow from its readings, the log of a model of it, and what may go wrong with what it is fed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, WindowMetrics
from mlrunbook.domain.evaluation.prediction_rows import confusion_of
from mlrunbook.domain.evaluation.probing import judge_probing
from mlrunbook.domain.investigation import findings as f
from mlrunbook.domain.investigation.diagnosis import Diagnosis, diagnose
from mlrunbook.domain.investigation.facts import About, Changed, DiagnosisFacts, Log, Versions, gather
from mlrunbook.domain.investigation.inputs.faults import judge_inputs
from mlrunbook.domain.investigation.upstream import courses
from mlrunbook.domain.observed import Change, Missing, Prediction, ServingStatus
from mlrunbook.domain.policy.policy import Policy

START = datetime(2026, 3, 2, tzinfo=UTC)
EVERY_S = 3.6
THRESHOLD = 0.49
POLICY = Policy()
STATUS = ServingStatus("pump-failure", "v2.0.0", "v1.5.0", None, True, "v2.0.0")
Features = dict[str, Any]
Spoil = Callable[[int, Features, np.random.Generator], Features]  # row, its features


@dataclass(frozen=True)
class Fleet:
    """`n` rows from `first` on. The model knows the truth but for noise: `score` is read off the features as they arrive, the outcome off
    the features as they are."""

    n: int
    first: int = 0
    seed: int = 0
    assets: int = 400
    threshold: float = THRESHOLD
    version: str = "v2.0.0"
    spoil: Spoil | None = None
    mislead: Callable[[float, np.random.Generator], float] | None = None  # the truth of a row, from its risk
    rows: list[Prediction] = field(default_factory=list, compare=False)

    def log(self) -> list[Prediction]:
        rng = np.random.default_rng(self.seed)
        made = []
        for i in range(self.first, self.first + self.n):
            true: Features = {
                "torque": float(np.round(np.abs(rng.normal(40, 12)), 2)),
                "speed": float(np.round(rng.normal(1500, 180), 1)),
                "air_c": float(np.round(rng.normal(22, 4), 2)),
                "wear": float(np.round(rng.uniform(0, 240), 1)),
                "hot": bool(rng.random() < 0.3),
            }
            risk = risk_of(true)
            if self.mislead:
                risk = self.mislead(risk, rng)
            seen = self.spoil(i, dict(true), rng) if self.spoil else true
            score = risk_of(seen)
            made.append(
                Prediction(
                    i + 1,
                    START + timedelta(seconds=EVERY_S * i),
                    f"pump_{i % self.assets}",
                    "LMH"[int(rng.integers(3))],
                    seen,
                    score,
                    score >= self.threshold,
                    self.version,
                    self.threshold,
                    4.0,
                    bool(rng.random() < risk),
                )
            )
        return made


def risk_of(features: Mapping[str, Any]) -> float:
    """Much torque on a worn tool. What is not a number the model takes for the mean."""
    torque, wear, speed = (_number(features.get(name), mean) for name, mean in (("torque", 40.0), ("wear", 120.0), ("speed", 1500.0)))
    x = (torque - 47) / 3 + (wear - 150) / 25 - (speed - 1500) / 120
    return float(np.clip(1 / (1 + np.exp(-np.clip(x, -30, 30))), 0.001, 0.999))


def _number(value: Any, mean: float) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value) else mean


def window(rows: list[Prediction]) -> WindowMetrics:
    """As the platform counts them."""
    counts = confusion_of(rows)
    parts = [rows[i * len(rows) // 60 : (i + 1) * len(rows) // 60] for i in range(60)]
    types = {name: confusion_of(p for p in rows if p.asset_type == name) for name in sorted({p.asset_type for p in rows})}
    seen = WindowMetrics(rows[0].at, rows[-1].at, len(rows), counts.n, Confusion(), versions=("v2.0.0",), by_asset_type=types)
    return replace(seen, **{_COUNTS: counts}, blocks=tuple(confusion_of(part) for part in parts))


_COUNTS = "confusion" if "confusion" in WindowMetrics.__dataclass_fields__ else "tally"


@dataclass(frozen=True)
class Looked:
    diagnosis: Diagnosis
    facts: DiagnosisFacts


def looked_into(before: list[Prediction], now: list[Prediction], changes: list[Change] | None = None) -> Looked:
    """As an investigation looks at them, a minute after the last row."""
    at = max(p.at for p in now) + timedelta(minutes=1)
    metrics = ModelMetrics("pump-failure", window(now), window(before))
    baseline, drops = confusion_of(before), POLICY.severity.drops
    found = [
        *f.recent_changes(changes or [], at),
        *f.model_performance(metrics, POLICY.severity),
        f.affected_asset_types(metrics, drops),
        f.feature_distributions(now, before, POLICY.drift),
        f.missing_features(now, before),
        f.data_freshness(now, at),
        f.server_logs(Missing("none")),
        f.predictions_vs_outcomes(now, baseline, drops),
        f.error_patterns(now),
    ]
    log = Log(now, courses(before, now), judge_probing(now, before), judge_inputs(before, now, baseline, drops), now, before)
    facts = gather(
        About(at, "v2.0.0"), POLICY, changed=Changed(changes or []), metrics=metrics, log=log, features=None, versions=Versions(STATUS)
    )
    return Looked(diagnose(found, facts, at), facts)
