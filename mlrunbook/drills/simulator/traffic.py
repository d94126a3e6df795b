"""The fleet at work: seeds a labelled past, sends readings to the model server and their outcomes to the platform.

With a feature store, readings land as Parquet, and predictions are asked for by asset id once they have been materialised. All else after
`build_history` goes through the public HTTP API. `simulator.py` breaks things on top of it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from sqlalchemy import Connection, Engine

from mlrunbook.base.db import transaction
from mlrunbook.domain.errors import Refused, Transient
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.drills.simulator.fleet import Source
from mlrunbook.local.features import lake
from mlrunbook.local.platform import artefacts, predictions, registry
from mlrunbook.local.platform.columns import ASSET_TYPE, RAW
from mlrunbook.local.platform.training import confusion, train

if TYPE_CHECKING:
    import pandas as pd

MODEL = "predictive_maintenance"
GOOD_VERSION, OLD_VERSION = "v1.5.0", "v1.4.0"
OLD_SINCE, GOOD_SINCE = timedelta(days=60), timedelta(days=21)  # ago; longer than the "last 7 days" of the checklist
HISTORY_FROM, HISTORY_TO = timedelta(days=7), timedelta(hours=2)  # ago
TRAINING_ROWS = 40_000
PIPELINE = "release_pipeline"
OUTCOMES_A_REQUEST = 2000
OUTCOMES_KEPT = 100_000  # while the platform is away; older ones are dropped
FEATURE_PATIENCE_S = 3.0  # for a tick's readings to reach the online store; a run takes 0.3 s
FEATURE_POLL_S = 0.05
READ_BEFORE = timedelta(seconds=1)  # a seeded reading was taken this long before its prediction


@dataclass
class Traffic:
    """What was sent since the start."""

    predictions: int = 0
    outcomes: int = 0
    errors: int = 0
    last_error: str = ""


@dataclass(frozen=True)
class History:
    """The seeded past: which version serves, with which threshold, and how it did (the baseline)."""

    version: str
    threshold: float
    baseline: Confusion


@dataclass(frozen=True)
class Access:
    """Where the model server and the platform are, and the token of the fleet."""

    server_url: str
    platform_url: str
    token: str


class FleetTraffic:
    """Readings from `source` against one model. `tick` and `run` may be called from different threads.

    `lake` is where readings land for the feature store; without it (None) features travel in the request.
    """

    old_version, good_version = OLD_VERSION, GOOD_VERSION
    has_server = True

    def __init__(
        self,
        source: Source,
        *,
        access: Access,
        models_dir: Path,
        lake: Path | None = None,
        model: str = MODEL,
        seed: int = 0,
        http: httpx.Client | None = None,
    ) -> None:
        self.model, self.traffic = model, Traffic()
        self._baseline: Confusion | None = None
        self._source, self._models_dir, self._lake, self._seed = source, models_dir, lake, seed
        self._server, self._platform = access.server_url.rstrip("/"), access.platform_url.rstrip("/")
        self._http = http or httpx.Client(timeout=30.0, trust_env=False)
        self._headers = {"Authorization": f"Bearer {access.token}"}
        self._lock = threading.Lock()
        self._outcomes: deque[dict[str, Any]] = deque(maxlen=OUTCOMES_KEPT)
        self._stalled: Any = None  # the schedules as they were when waiting for them was in vain

    # -- the past

    def build_history(self, on: Engine | None = None, *, now: datetime, rows: int = 30_000) -> History:
        """Train v1.4.0 and v1.5.0, put them in production as of 60 and 21 days ago, and log `rows` labelled predictions of v1.5.0
        between 7 days and 2 hours ago, each with the reading it was made from in the lake.

        A model that already has a past keeps it: then nothing is written, and the baseline is measured on fresh readings.
        30,000 rows make the baseline precise to 1 % (one standard deviation), so that "back within 5 %" means something.
        """
        with transaction(on) as conn:
            past = registry.history(conn, self.model, limit=1)
        if not past:
            self._train_past(now)
        serving = artefacts.load(self._models_dir / self.model / self.good_version)
        threshold = serving.manifest.threshold
        readings = self._source.readings(rows)
        scores = serving.score(readings)
        self._baseline = confusion(readings["failed"].to_numpy(), scores >= threshold)
        if not past:
            ages_s = np.linspace(HISTORY_FROM.total_seconds(), HISTORY_TO.total_seconds(), len(readings))
            made_at = [now - timedelta(seconds=float(age_s)) for age_s in ages_s]
            if self._lake:  # before the commit: a past that a broken-off attempt left there is landed once more, and no row is missing
                read_at = [at - READ_BEFORE for at in made_at]
                lake.land(self._lake, readings.assign(event_timestamp=read_at, created=read_at))
            with transaction(on) as conn:
                self._register_past(conn, now)
                self._log_past(conn, made_at, readings, scores, threshold)
        return History(self.good_version, threshold, self._baseline)

    def _train_past(self, now: datetime) -> None:
        """Save the two versions; one that a broken-off attempt left is used as it is."""
        frame = self._source.training(TRAINING_ROWS)
        for version, rows, trained_to in ((self.old_version, len(frame) * 3 // 4, OLD_SINCE), (self.good_version, len(frame), GOOD_SINCE)):
            folder = self._models_dir / self.model / version
            if not folder.exists():
                window: dict[str, Any] = {"trained_from": now - timedelta(days=150), "trained_to": now - trained_to - timedelta(days=1)}
                estimator, manifest = train(frame.head(rows), model=self.model, version=version, seed=self._seed, **window)
                artefacts.save(estimator, folder, manifest)

    def _register_past(self, conn: Connection, now: datetime) -> None:
        for version, since in ((self.old_version, OLD_SINCE), (self.good_version, GOOD_SINCE)):
            registry.register(conn, self._models_dir, model=self.model, version=version, by=PIPELINE, at=now - since)
            change = registry.Change(registry.PROMOTE, PIPELINE, now - since, f"scheduled release {version}")
            registry.serve(conn, self._models_dir, model=self.model, version=version, change=change)

    def _log_past(self, conn: Connection, made_at: list[datetime], readings: pd.DataFrame, scores: Any, threshold: float) -> None:
        rng = np.random.default_rng(self._seed)
        rows = [
            predictions.Scored(
                at=at,
                asset_id=asset_id,
                asset_type=str(features[ASSET_TYPE]),
                features=features,
                score=score,
                null_count=sum(value is None for value in features.values()),
                outcome=failed,
            )
            for at, asset_id, features, score, failed in zip(
                made_at, readings["asset_id"], as_features(readings), scores.tolist(), readings["failed"].tolist(), strict=True
            )
        ]
        for start in range(0, len(rows), 2000):  # each part with its own latency, around 20 ms a request
            latency_ms = float(rng.lognormal(np.log(20), 0.2))
            part = rows[start : start + 2000]
            predictions.record(conn, part, model=self.model, version=self.good_version, threshold=threshold, latency_ms=latency_ms)

    # -- the present

    def tick(self, n: int) -> None:
        """Send n readings and the outcomes that are due. A server that is stopped or fails is counted, never raised."""
        with self._lock:
            self._send(self._source.readings(n))

    def run(self, stop: threading.Event, *, interval_s: float = 0.5, batch: int = 1000) -> None:
        """Tick until `stop` is set. Returns within one tick of it."""
        while not stop.is_set():
            started = time.monotonic()
            with self._lock:
                if not self._is_quiet():
                    self._send(self._source.readings(batch))
            stop.wait(max(0.0, interval_s - (time.monotonic() - started)))

    def _is_quiet(self) -> bool:
        """Whether ordinary traffic pauses."""
        return False

    def _send(self, readings: pd.DataFrame) -> None:
        """Readings of one asset in turn: the feature store serves its newest alone."""
        if self._lake is None:
            records = zip(readings["asset_id"], as_features(self._delivered(readings)), strict=True)
            self._predict(readings, [{"assetId": asset_id, "features": features} for asset_id, features in records])
            return
        for _, one_each in readings.groupby(readings.groupby("asset_id").cumcount()):
            at = datetime.now(UTC)
            lake.land(self._lake, self._delivered(one_each), at)
            self._await_features(at)
            self._after_landing(one_each, at)
            self._predict(one_each, [{"assetId": asset_id} for asset_id in one_each["asset_id"]])

    def _delivered(self, readings: pd.DataFrame) -> pd.DataFrame:
        """What upstream makes of the readings on their way."""
        return readings

    def _after_landing(self, readings: pd.DataFrame, at: datetime) -> None:
        """What else upstream writes once these readings, taken at `at`, have arrived."""

    def _await_features(self, at: datetime) -> None:
        """Until every view that is materialised on a schedule has come to `at`: for a while, and not for one that is suspended or failing.

        A schedule that did not move while we waited is not waited for again until it does.
        """
        deadline = time.monotonic() + FEATURE_PATIENCE_S
        while True:
            try:
                schedules = self._call("GET", f"{self._platform}/api/v1/ml/features/schedules")["schedules"]
            except (Transient, Refused):  # the platform is away, or there are no schedules: predictions go on with what is there
                return
            until = {s["view"]: s["materializedUntil"] for s in schedules if not s["suspended"] and not s["error"]}
            if all(reached and datetime.fromisoformat(reached) >= at for reached in until.values()):
                self._stalled = None
                return
            if until == self._stalled:
                return
            if time.monotonic() > deadline:
                self._stalled = until
                return
            time.sleep(FEATURE_POLL_S)

    def _predict(self, readings: pd.DataFrame, assets: list[dict[str, Any]]) -> None:
        """Ask for predictions, and send the outcomes of these and earlier ones."""
        made = [p["predictionId"] for p in self._ask(assets)]  # in the order asked; none where there was no answer
        self.traffic.predictions += len(made)
        self._outcomes.extend({"predictionId": i, "failed": f} for i, f in zip(made, readings["failed"].tolist(), strict=False))
        try:
            while self._outcomes and self._outcomes_flow():
                part = list(islice(self._outcomes, OUTCOMES_A_REQUEST))
                self._call("POST", f"{self._platform}/api/v1/ml/predictions/outcomes", {"outcomes": part})
                self.traffic.outcomes += len(part)
                for _ in part:
                    self._outcomes.popleft()
        except (Transient, Refused) as error:
            self._count(error)

    def _ask(self, assets: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The predictions, empty when there is no answer."""
        try:
            answer = self._call("POST", f"{self._server}/api/v1/ml/models/{self.model}/predict", {"assets": assets})
        except (Transient, Refused) as error:
            self._count(error)
            return []
        predictions: list[dict[str, Any]] = answer["predictions"]
        return predictions

    def _outcomes_flow(self) -> bool:
        """Whether what became of the assets is told."""
        return True

    def _count(self, error: Exception) -> None:
        self.traffic.errors += 1
        self.traffic.last_error = str(error)

    def _call(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            response = self._http.request(method, url, json=body, headers=self._headers)
            if response.is_success:
                return response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise Transient(f"{url} did not answer ({type(error).__name__}); is it running?") from error
        kind = Transient if response.status_code >= 500 or response.status_code == 429 else Refused
        raise kind(f"{method} {url} answered {response.status_code}: {response.text[:200]}")


def as_features(readings: pd.DataFrame) -> list[dict[str, Any]]:
    """The RAW features of each row as JSON-ready dicts, null where unknown."""
    raw = readings[list(RAW)]
    if raw.isna().to_numpy().any():
        raw = raw.astype(object).where(raw.notna(), None)
    records: list[dict[str, Any]] = raw.to_dict("records")
    return records
