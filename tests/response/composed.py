"""A world whose platform is composed: versions in MLflow, predictions in `FileWorld`, which answers as good as the version that the alias
names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from mlrunbook.adapters.composed_platform import ComposedPlatform, Parts
from mlrunbook.adapters.mlflow.client import MlflowClient
from mlrunbook.adapters.mlflow.registry import MlflowRegistry
from mlrunbook.adapters.no_runtime import NoRuntime
from mlrunbook.domain.policy.connections import Connection, Kind, PlatformParts, PredictionsPart, RegistryPart, Serving
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.response.measurement.registry_ledger import StoreLedger
from mlrunbook.response.world import World
from tests.fake_mlflow import URL, FakeMlflow
from tests.fakes import MODEL, Clock, FileWorld, world_of

GOOD, BAD = "1", "2"
Tap = Callable[[str], None]


class Served(FileWorld):
    """What serves is what the alias names."""

    def __init__(self, mlflow: FakeMlflow, path: Path, now: Clock, tap: Tap = lambda _: None) -> None:
        self.mlflow = mlflow
        super().__init__(path, now, tap)

    @property
    def state(self) -> dict[str, Any]:
        serving = self.mlflow.aliases(MODEL).get("champion", BAD)
        return super().state | {"serving": serving, "previous": None, "versions": [GOOD, BAD], "bad_versions": {BAD: "degraded"}}


def policy_with(serving: Serving = Serving.NONE, part: RegistryPart | None = None, **more: Any) -> Policy:
    connections = {"ml": Connection(Kind.MLFLOW), "lake": Connection(Kind.SQL)}
    parts = PlatformParts(part or RegistryPart("ml"), PredictionsPart("lake", table="predictions"), serving=serving)
    return Policy(connections=connections, models={MODEL: ModelRules(platform=parts)}, **more)


def composed(engine: Engine, folder: Path, clock: Clock, policy: Policy, tap: Tap = lambda _: None) -> World:
    """No REST platform: no work orders, no schedules, no replay."""
    mlflow = FakeMlflow(folder / "mlflow.json", tap)
    served = Served(mlflow, folder / "world.json", clock, tap)
    world = world_of(engine, served, clock, policy=policy)
    runtime = NoRuntime() if policy.rules_of(MODEL).platform.serving is Serving.NONE else served  # type: ignore[union-attr]
    client = MlflowClient("ml", URL, transport=mlflow)
    registry = MlflowRegistry(policy, lambda _: client, StoreLedger(lambda: engine, clock), runtime, clock)
    platform = ComposedPlatform(policy, Parts(served, False, registry, predictions=lambda _: served))
    return replace(world, platform=platform, runtime=runtime, features=None, trainer=None, known_models=None)


def released_badly(world: World, mlflow: FakeMlflow, clock: Clock) -> None:
    """Version 1 served for long; two hours ago somebody made 2 serve."""
    mlflow.create(MODEL, versions=2, champion=GOOD)
    now = clock.at
    for back, version in ((timedelta(days=3), GOOD), (timedelta(hours=2), BAD)):
        clock.at = now - back
        mlflow.set_alias(MODEL, "champion", version)
        world.platform.status(MODEL)
    clock.at = now
