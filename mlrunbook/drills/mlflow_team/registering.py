"""How the team registers a version with MLflow: a run with its params and metrics, the model with its signature, and tags."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from mlrunbook.domain.errors import Refused
from mlrunbook.drills.mlflow_team.server import SETTINGS
from mlrunbook.local.platform import artefacts
from mlrunbook.local.platform.columns import ASSET_TYPE, RAW, engineer

EXPERIMENT = "maintenance"
ARTEFACT = "artefact"  # of the run: what the team's model server loads
QUIET = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}


def register(url: str, folder: Path) -> str:
    """The number that MLflow gives the version saved in `folder`."""
    os.environ |= SETTINGS | QUIET
    import mlflow
    import mlflow.sklearn
    import sklearn
    from mlflow.exceptions import MlflowException

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    loaded = artefacts.load(folder)
    manifest = loaded.manifest
    mlflow.set_tracking_uri(url)
    mlflow.set_experiment(EXPERIMENT)
    with warnings.catch_warnings(), mlflow.start_run():
        warnings.simplefilter("ignore")
        mlflow.log_params({"rows": manifest.rows, "seed": manifest.seed})
        mlflow.log_metrics({key: value for key, value in manifest.metrics.items() if value is not None})
        mlflow.log_artifacts(str(folder), ARTEFACT)
        logged = mlflow.sklearn.log_model(
            _from_readings(loaded),
            name="model",
            signature=_signature(),
            pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
            serialization_format="cloudpickle",
        )
    tags = {
        "trained_from": manifest.trained_from.isoformat(),
        "trained_to": manifest.trained_to.isoformat(),
        "threshold": f"{manifest.threshold:g}",
        "asset_types": ",".join(manifest.asset_types),
    }
    client = mlflow.MlflowClient()
    with contextlib.suppress(MlflowException):  # it is there already: what is wrong else, the next call says
        client.create_registered_model(manifest.model)
    made = client.create_model_version(manifest.model, logged.model_uri, logged.run_id, tags=tags, model_id=logged.model_id)
    return str(made.version)


def register_as(url: str, folder: Path, wanted: str) -> None:
    """Refused where MLflow numbers it otherwise: the version is known by that number before it is trained."""
    given = register(url, folder)
    if given != wanted:
        raise Refused(f"MLflow numbers the new version {given}, not {wanted}: another one was registered meanwhile; train again")


def _from_readings(loaded: artefacts.LoadedModel) -> Any:
    """The model on the readings as they are logged."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    manifest = loaded.manifest
    return make_pipeline(FunctionTransformer(partial(_columns, list(manifest.features), manifest.asset_types)), loaded.estimator)


def _columns(names: list[str], asset_types: tuple[str, ...], frame: Any) -> Any:
    return engineer(frame, asset_types)[names].to_numpy()


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    kinds = {name: "string" if name == ASSET_TYPE else "double" for name in RAW}
    return ModelSignature(
        inputs=Schema([ColSpec(kind, name, required=False) for name, kind in kinds.items()]), outputs=Schema([ColSpec("long")])
    )
