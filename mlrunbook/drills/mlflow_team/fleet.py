"""The simulated fleet of a team that has MLflow: its past and its releases are versions there, and the alias says which one serves."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from mlrunbook.drills.mlflow_team import registering
from mlrunbook.drills.mlflow_team.server import SERVING, MlflowServer
from mlrunbook.drills.simulator.simulator import FleetSimulator
from mlrunbook.drills.simulator.traffic import GOOD_SINCE, OLD_SINCE
from mlrunbook.local.platform import artefacts


class MlflowFleet(FleetSimulator):
    """MLflow counts versions: 1 served before, 2 serves."""

    old_version, good_version = "1", "2"

    def __init__(self, *args: Any, mlflow: MlflowServer, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._mlflow = mlflow

    def register_past(self, *, now: datetime) -> None:
        """What `build_history` has trained, as MLflow shows it; the newer one is what serves."""
        for version, since in ((self.old_version, OLD_SINCE), (self.good_version, GOOD_SINCE)):
            registering.register_as(self._mlflow.url, self._models_dir / self.model / version, version)
            self._mlflow.made_at(self.model, version, now - since)
        self._mlflow.set_alias(self.model, SERVING, self.good_version)

    def _deploy(self, estimator: Any, manifest: artefacts.Manifest) -> str:
        with tempfile.TemporaryDirectory(prefix="mlrunbook-release-") as folder:
            built = Path(folder) / "built"
            artefacts.save(estimator, built, manifest)
            version = registering.register(self._mlflow.url, built)
        self._mlflow.set_alias(self.model, SERVING, version)
        return f"version {version} of {self.model} is registered in MLflow, and {SERVING} moved to it"
