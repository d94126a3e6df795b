"""The team's training command: `python -m mlrunbook.drills.mlflow_team.training`. Trains as `mlrunbook train` does, then registers."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from mlrunbook.base import db
from mlrunbook.base.settings import connection_address, settings
from mlrunbook.domain.errors import Invalid, RunbookError
from mlrunbook.domain.policy.connections import connection_variable
from mlrunbook.drills.mlflow_team import registering
from mlrunbook.drills.mlflow_team.server import CONNECTION
from mlrunbook.local.features.definitions import SERVICE
from mlrunbook.local.platform.training import Sources, Wanted, train_version

COMMAND = """
training:
  command: [python, -m, mlrunbook.drills.mlflow_team.training, "{start_date}", "{end_date}", "{model_name}", "{version}"]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a version and register it with MLflow")
    for name in ("start", "end", "model", "version"):
        parser.add_argument(name)
    args = parser.parse_args()
    try:
        train(args.model, args.version, datetime.fromisoformat(args.start), datetime.fromisoformat(args.end))
    except RunbookError as error:
        sys.exit(f"training: {error}")


def train(model: str, version: str, start: datetime, end: datetime) -> None:
    config = settings()
    url = connection_address(CONNECTION)
    if url is None or config.feature_repo is None:
        raise Invalid(f"training needs {connection_variable(CONNECTION)} and MLRUNBOOK_FEATURE_REPO")
    sources = Sources(db.engine(), config.feature_repo, SERVICE, config.models_dir)
    train_version(Wanted(model, version, start, end), sources, now=datetime.now(UTC), say=print)
    registering.register_as(url, config.models_dir / model / version, version)
    print(f"registered in MLflow as version {version}")


if __name__ == "__main__":
    main()
