"""The team of `--platform mlflow` with a real MLflow: a bad release goes out by its alias, and comes back by it, once, as MLflow counts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mlrunbook.adapters.composed_platform import ComposedPlatform, Parts
from mlrunbook.adapters.mlflow.registry import MlflowRegistry
from mlrunbook.adapters.model_platform import HttpPlatform
from mlrunbook.adapters.no_runtime import NoRuntime
from mlrunbook.adapters.warehouse.log import WarehouseLog
from mlrunbook.base.db import transaction
from mlrunbook.base.policy_file import parse
from mlrunbook.domain.errors import Invalid
from mlrunbook.drills.mlflow_team import batch
from mlrunbook.drills.mlflow_team.fleet import MlflowFleet
from mlrunbook.drills.mlflow_team.server import SERVING, MlflowServer
from mlrunbook.drills.mlflow_team.team import Team
from mlrunbook.drills.mlflow_team.world import FAULTS as PLAYED
from mlrunbook.drills.mlflow_team.world import POLICY, check
from mlrunbook.drills.simulator.faults import FAULTS
from mlrunbook.drills.simulator.fleet import Fleet
from mlrunbook.drills.simulator.traffic import MODEL, Access, History
from mlrunbook.local.platform import registry
from mlrunbook.response.measurement.registry_ledger import StoreLedger
from tests.mlflow_server import mlflow_server

ROWS = 6000


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(folder) as url:
        yield MlflowServer(folder, port=int(url.rsplit(":", 1)[1]))


@pytest.fixture(scope="module")
def fleet(mlflow: MlflowServer, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> MlflowFleet:
    access = Access("http://server", "http://platform", "")
    return MlflowFleet(Fleet(3), access=access, models_dir=tmp_path_factory.mktemp("models"), mlflow=mlflow)


@pytest.fixture(scope="module")
def past(fleet: MlflowFleet, mlflow: MlflowServer, engine: Engine) -> History:
    history = fleet.build_history(engine, now=now(), rows=ROWS)
    fleet.register_past(now=now())
    mlflow.count_moves()
    return history


@pytest.fixture(scope="module")
def team(fleet: MlflowFleet, past: History, mlflow: MlflowServer, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Team:
    return Team(mlflow, engine, fleet._models_dir, tmp_path_factory.mktemp("lake"), MODEL)


@pytest.fixture(scope="module")
def runbook(team: Team, mlflow: MlflowServer, engine: Engine) -> ComposedPlatform:
    """What the runbook sees of it, by the policy of the demo."""
    team.work()
    policy = parse(POLICY.replace("serving: local", "serving: none"))
    parts = policy.rules_of(MODEL).platform
    assert parts is not None
    assert parts.predictions is not None
    log = WarehouseLog("predictions", f"duckdb://{team.lake}", lambda _: parts.predictions)  # type: ignore[arg-type, return-value]
    versions = MlflowRegistry(policy, lambda _: mlflow.client, StoreLedger(lambda: engine, now), NoRuntime(), now)
    return ComposedPlatform(policy, Parts(HttpPlatform("http://platform", None), True, versions, lambda _: log))


def serves(engine: Engine) -> str | None:
    """By what the model server goes."""
    with transaction(engine) as conn:
        return registry.slots(conn, MODEL).serving


def test_the_runbook_reads_the_past_out_of_mlflow_and_the_parquet_files(runbook: ComposedPlatform, past: History) -> None:
    assert runbook.status(MODEL).serving_version == "2"
    older, newer = runbook.versions(MODEL)
    assert older.registered_at < newer.registered_at < now()
    assert newer.threshold == pytest.approx(past.threshold)
    assert newer.asset_types == ("L", "M", "H")
    assert newer.trained_from is not None
    assert newer.features is not None
    assert "torque_nm" in newer.features
    baseline = runbook.metrics(MODEL).baseline
    assert (baseline.predictions, baseline.confusion) == (ROWS, past.baseline)


def test_a_bad_release_is_served_by_its_alias_and_taken_back_by_it_once(
    runbook: ComposedPlatform, fleet: MlflowFleet, team: Team, mlflow: MlflowServer, engine: Engine
) -> None:
    assert runbook.status(MODEL).serving_version == "2"
    before = mlflow.applied(MODEL)
    fleet.inject(FAULTS["bad-release"])
    team.work()
    assert serves(engine) == "3"
    seen = runbook.status(MODEL)
    assert (seen.serving_version, seen.previous_version) == ("3", "2")
    for _ in range(2):  # whoever takes over from a run that was killed asks again
        runbook.rollback(MODEL, target_version="2", reason="it is wrong", rolled_back_by="the runbook", idempotency_key="plan-1")
    team.work()
    assert serves(engine) == "2"
    assert mlflow.client.aliases(MODEL) == {SERVING: "2"}
    counted = {kind: count - before[kind] for kind, count in mlflow.applied(MODEL).items()}
    assert counted == {"promote": 1, "rollback": 1, "register": 1, "staging": 0}


def test_what_the_team_wrote_once_is_not_written_again(team: Team, engine: Engine) -> None:
    files: set[Path] = set(team.lake.rglob("*.parquet"))
    team.work()
    assert set(team.lake.rglob("*.parquet")) == files


def test_a_fault_that_was_not_tried_there_is_refused_with_those_that_were() -> None:
    with pytest.raises(Invalid) as refused:
        check(FAULTS["blip"])
    assert all(name in str(refused.value) for name in PLAYED)


def test_the_policy_of_two_models_gives_each_its_owner_and_its_channels() -> None:
    policy = parse(POLICY + batch.POLICY + batch.CHANNELS)
    one, other = policy.rules_of(MODEL), policy.rules_of(batch.MODEL)
    assert one.owner != other.owner
    assert (one.channels or {}).get("page", "page") != (other.channels or {})["page"]
    assert set((other.channels or {}).values()) <= set(policy.channels)


class Gateway:
    """Keeps the alerts that it receives."""

    def __init__(self) -> None:
        self.firing: list[tuple[str, bool]] = []

    def tell(self, sentence: str, version: str, *, firing: bool) -> None:
        self.firing.append((version, firing))


def test_a_team_without_a_server_scores_by_the_alias_and_raises_and_ends_its_own_alert(mlflow: MlflowServer, tmp_path: Path) -> None:
    fleet, gateway = batch.BatchFleet(Fleet(5), mlflow=mlflow, models_dir=tmp_path / "models", log=tmp_path / "log", seed=0), Gateway()
    fleet.seed_past(now=now())
    fleet.register_past(now=now())
    fleet.gateway = gateway  # type: ignore[assignment]
    fleet.tick(4000)
    assert gateway.firing == []
    fleet.inject(FAULTS["bad-release"])
    fleet.tick(4000)
    fleet.tick(1000)
    assert gateway.firing == [("3", True)]
    mlflow.set_alias(batch.MODEL, SERVING, "2")
    fleet.tick(4000)
    assert gateway.firing == [("3", True), ("3", False)]
