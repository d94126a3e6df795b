"""What the team's own parts do all day: the model server follows the alias, a pipeline writes the prediction log. MLflow and the files are
real; this plays what moves things between them."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from sqlalchemy import Connection, Engine

from mlrunbook.base import db
from mlrunbook.domain.errors import RunbookError
from mlrunbook.drills.mlflow_team import prediction_log, registering
from mlrunbook.drills.mlflow_team.prediction_log import PredictionLog
from mlrunbook.drills.mlflow_team.server import CANDIDATE, SERVING, MlflowServer
from mlrunbook.drills.simulator.traffic import PIPELINE
from mlrunbook.local.platform import artefacts, registry
from mlrunbook.local.platform.artefacts import ARTEFACT, MANIFEST, Manifest
from mlrunbook.local.platform.columns import ASSET_TYPE, RAW

log = logging.getLogger(__name__)
ROUND_S = 0.3
WAREHOUSE = "predictions"  # the connection's name


def policy_of(model: str, *, owner: str = "Reliability ML", serving: str = "local", replay: str = "rest") -> str:
    """The model's part of the policy, as `mlrunbook connect` would write it."""
    features = ", ".join(RAW)
    return f"""
  {model}:
    owner: {owner}
    platform:
      registry: {{connection: mlflow, serving_alias: {SERVING}, candidate_alias: {CANDIDATE}}}
      predictions:
        connection: {WAREHOUSE}
        table: {model}/{prediction_log.PREDICTIONS}
        outcomes_table: {model}/{prediction_log.OUTCOMES}
        columns:
          {{day: day, asset_id: asset_id, segment: {ASSET_TYPE}, threshold: threshold, latency_ms: latency_ms, features: [{features}]}}
        outcomes: {{outcome: failed, day: day}}
        late_outcomes_days: 1
      replay: {replay}
      serving: {serving}
"""


class Team:
    """A context manager: works in a thread while it is open."""

    def __init__(self, mlflow: MlflowServer, engine: Engine, models_dir: Path, lake: Path, model: str) -> None:
        self._mlflow, self._engine, self._models_dir, self._model = mlflow, engine, models_dir, model
        self.lake = lake
        self._log = PredictionLog(lake / model, model)
        self._complaint = ""
        self._stop, self._round = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"team of {model}", daemon=True)

    def __enter__(self) -> Team:
        self.work()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(timeout=15)

    def _run(self) -> None:
        while not self._stop.wait(ROUND_S):
            try:
                self.work()
            except RunbookError as error:  # MLflow or the database is away for a moment: the next round finds it again
                if str(error) != self._complaint:
                    log.warning("%s", error)
                self._complaint = str(error)

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """No round meanwhile."""
        with self._round:
            yield

    def work(self) -> None:
        """One round."""
        with self._round:
            with db.transaction(self._engine) as conn:
                self._log.write_new(conn)
            aliases = self._mlflow.client.aliases(self._model)
            fetched = self._fetch()
            with db.transaction(self._engine) as conn:
                self._follow(conn, aliases.get(SERVING), aliases.get(CANDIDATE), fetched)

    def _fetch(self) -> list[str]:
        """The artefacts of every version, from the run that made it."""
        found = self._mlflow.client.versions(self._model)
        for version in found:
            folder = self._models_dir / self._model / version.version
            if version.run_id and not folder.exists():
                fetch(self._mlflow, version.run_id, version.version, folder)
        return [version.version for version in found if (self._models_dir / self._model / version.version).exists()]

    def _follow(self, conn: Connection, serving: str | None, staged: str | None, versions: Sequence[str]) -> None:
        now, known = datetime.now(UTC), {one.version for one in registry.list_versions(conn, self._model)}
        for version in versions:
            if version not in known:
                registry.register(conn, self._models_dir, model=self._model, version=version, by=PIPELINE, at=now)
        slots = registry.slots(conn, self._model)
        if serving in versions and serving != slots.serving:
            assert serving is not None
            change = registry.Change(registry.PROMOTE, PIPELINE, now, f"{SERVING} names it")
            slots = registry.serve(conn, self._models_dir, model=self._model, version=serving, change=change)
        if staged != slots.staging and (staged is None or (staged in versions and staged != slots.serving)):
            registry.stage(conn, self._models_dir, model=self._model, version=staged, by=PIPELINE, at=now)


def fetch(mlflow: MlflowServer, run_id: str, version: str, folder: Path) -> None:
    """The folder appears whole; its manifest calls the version as MLflow does."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{version}.", dir=folder.parent))
    try:
        (building / ARTEFACT).write_bytes(mlflow.artifact(run_id, f"{registering.ARTEFACT}/{ARTEFACT}"))
        manifest = Manifest.from_dict(json.loads(mlflow.artifact(run_id, f"{registering.ARTEFACT}/{MANIFEST}")))
        (building / MANIFEST).write_text(json.dumps(replace(manifest, version=version).as_dict()))
        building.chmod(0o755)
        artefacts.load(building)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
