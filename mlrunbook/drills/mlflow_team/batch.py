"""A second team: it scores its machines in batches by the version that the alias names, without a server, and watches F1 by a rule of its
own. What a rollback changes for it is the alias alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.drills.mlflow_team.fleet import MlflowFleet
from mlrunbook.drills.mlflow_team.prediction_log import OUTCOMES, PREDICTIONS, PredictionLog
from mlrunbook.drills.mlflow_team.server import SERVING, MlflowServer
from mlrunbook.drills.mlflow_team.team import fetch, policy_of
from mlrunbook.drills.simulator.fleet import Source
from mlrunbook.drills.simulator.traffic import HISTORY_FROM, HISTORY_TO, Access, as_features
from mlrunbook.local.platform import alerts, artefacts
from mlrunbook.local.platform.columns import RAW
from mlrunbook.local.platform.training import confusion

if TYPE_CHECKING:
    import pandas as pd

MODEL = "spindle_failure"
ROWS = 30_000
FELL, LEAST_FAILURES = 0.15, 60
ALERT = "ModelF1Drop"
# Its owner, its own channels and people, and a limit of its own: at it a fall is high.
POLICY = (
    policy_of(MODEL, owner="Spindle ML", serving="none", replay="none")
    + """    feature_views: []
    channels: {incidents: spindles, email: spindles, page: spindle_pager, tickets: spindles}
    escalation: {ml_team_lead: {name: "[Spindle ML Lead]"}}
    severity: {drops: {metrics: [{name: f1, worse: lower, medium: 0.10, high: 0.15}]}}
"""
)
CHANNELS = """
channels:
  spindles: "#spindle-incidents"
  spindle_pager: pager of Spindle ML
"""


@dataclass(frozen=True)
class Gateway:
    url: str
    token: str

    def tell(self, sentence: str, version: str, *, firing: bool) -> None:
        labels = {"alertname": ALERT, "severity": "critical", "model": MODEL, "model_version": version, "environment": "production"}
        now = datetime.now(UTC).isoformat()
        one = {
            "status": "firing" if firing else "resolved",
            "labels": labels,
            "annotations": {"summary": sentence, "description": sentence},
            "startsAt": now,
            "endsAt": alerts.NEVER if firing else now,
            "generatorURL": "",
            "fingerprint": alerts.fingerprint(labels),
        }
        group = {"alertname": ALERT, "model": MODEL}
        body = {"version": "4", "groupKey": MODEL, "truncatedAlerts": 0, "receiver": "mlrunbook", "groupLabels": group, "externalURL": ""}
        body |= {"status": one["status"], "commonLabels": labels, "commonAnnotations": one["annotations"], "alerts": [one]}
        headers = {"Authorization": f"Bearer {self.token}"}
        httpx.post(f"{self.url}/webhooks/alertmanager", json=body, headers=headers, timeout=10, trust_env=False).raise_for_status()


class BatchFleet(MlflowFleet):
    """`lake` of the fleet is None: the readings are at hand where it scores."""

    has_server = False

    def __init__(self, source: Source, *, mlflow: MlflowServer, models_dir: Path, log: Path, seed: int) -> None:
        super().__init__(source, access=Access("", "", ""), models_dir=models_dir, model=MODEL, seed=seed, mlflow=mlflow)
        self._log = PredictionLog(log / MODEL, MODEL)
        self._made = 0
        self._version, self._seen, self._firing = "", Confusion(), ""
        self.gateway: Gateway | None = None

    def seed_past(self, *, now: datetime) -> None:
        self._train_past(now)
        serving, readings = artefacts.load(self._models_dir / MODEL / self.good_version), self._source.readings(ROWS)
        ages_s = np.linspace(HISTORY_FROM.total_seconds(), HISTORY_TO.total_seconds(), len(readings))
        at = [datetime.fromtimestamp(now.timestamp() - age, UTC) for age in ages_s]
        self._baseline = self._scored(readings, serving, self.good_version, at)

    def _predict(self, readings: pd.DataFrame, assets: list[dict[str, Any]]) -> None:
        version = self._mlflow.client.aliases(MODEL)[SERVING]
        folder = self._models_dir / MODEL / version
        if not folder.exists():
            fetch(self._mlflow, str(self._mlflow.client.version(MODEL, version).run_id), version, folder)
        counted = self._scored(readings, artefacts.load(folder), version, [datetime.now(UTC)] * len(readings))
        self.traffic.predictions += len(readings)
        self._seen = self._seen + counted if version == self._version else counted
        self._version = version
        self._judge()

    def _scored(self, readings: pd.DataFrame, loaded: artefacts.LoadedModel, version: str, at: Sequence[datetime]) -> Confusion:
        scores, threshold, failed = loaded.score(readings), loaded.manifest.threshold, readings["failed"].to_numpy(dtype=bool)
        keys = [str(self._made + i + 1) for i in range(len(readings))]
        self._made += len(readings)
        features = ([one[name] for name in RAW] for one in as_features(readings))
        made = zip(keys, at, readings["asset_id"], scores.tolist(), features, strict=True)
        self._log.write(
            PREDICTIONS, [(when, (key, when, asset, version, score, threshold, 5.0, *f)) for key, when, asset, score, f in made]
        )
        self._log.write(OUTCOMES, [(when, (key, bool(one), when)) for key, when, one in zip(keys, at, failed, strict=True)])
        return confusion(failed, scores >= threshold)

    def _judge(self) -> None:
        """The rule of the team's own monitoring."""
        seen, usual = self._seen, self._baseline
        if self.gateway is None or usual is None or not usual.f1 or seen.tp + seen.fn < LEAST_FAILURES:
            return
        fell = 1 - (seen.f1 or 0.0) / usual.f1
        sentence = f"{MODEL} F1 {seen.f1 or 0.0:.2f}, usually {usual.f1:.2f}, over {seen.n} scored rows of version {self._version}"
        if fell > FELL and self._firing != self._version:
            self.gateway.tell(sentence, self._version, firing=True)
            self._firing = self._version
        elif fell <= FELL and self._firing:
            self.gateway.tell(sentence, self._firing, firing=False)
            self._firing = ""
