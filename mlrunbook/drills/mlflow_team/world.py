"""`--platform mlflow`: the stack with a team's MLflow, prediction log and pipelines around it, and what changed at their side."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import delete

from mlrunbook.base import db
from mlrunbook.base.settings import Settings
from mlrunbook.domain.actions import Path as FixPath
from mlrunbook.domain.errors import Invalid, Transient
from mlrunbook.domain.policy.connections import connection_variable
from mlrunbook.drills.fleet_runner import simulator_for
from mlrunbook.drills.mlflow_team import batch, training
from mlrunbook.drills.mlflow_team.fleet import MlflowFleet
from mlrunbook.drills.mlflow_team.server import CANDIDATE, CONNECTION, SERVING, MlflowServer, check_installed
from mlrunbook.drills.mlflow_team.team import WAREHOUSE, Team, policy_of
from mlrunbook.drills.simulator.faults import Fault
from mlrunbook.drills.simulator.fleet import Fleet, Source
from mlrunbook.drills.simulator.traffic import MODEL
from mlrunbook.local.stack import Stack
from mlrunbook.store import registry_moves
from mlrunbook.store.tables import registry_moves as moves_table

FAULTS = ("bad-release", "threshold-slip", "stale-features")
LEARNS_WITHIN_S = 60.0
OTHER_FLEET = 2_000_000  # added to the seed: the second team has machines of its own
POLICY = f"""
connections:
  {CONNECTION}: {{kind: mlflow}}
  {WAREHOUSE}: {{kind: sql}}
{training.COMMAND}
models:{policy_of(MODEL)}"""


def check(fault: Fault) -> None:
    """Invalid for a fault that is not played here; Refused where something is not installed."""
    if fault.name not in FAULTS:
        raise Invalid(f"--platform mlflow plays {', '.join(FAULTS)}; {fault.name} needs --platform rest", field="fault")
    check_installed()


class MlflowWorld:
    """In `folder`, beside the stack's data."""

    def __init__(self, folder: Path, *, models: int = 1) -> None:
        self.models = models
        self.server = MlflowServer(folder / "mlflow")
        self.lake = folder / "prediction-log"
        self.second: batch.BatchFleet | None = None
        self._team: Team | None = None
        self.env = self.server.env | {connection_variable(WAREHOUSE): f"duckdb://{self.lake}"}

    @property
    def policy(self) -> str:
        return POLICY + (batch.POLICY + batch.CHANNELS if self.models > 1 else "")

    def seeded(self, stack: Stack, source: Source, *, seed: int) -> MlflowFleet:
        """Its fleet, once MLflow is up and the model has a past there and in the log."""
        service, now, fleet = self.server.service, datetime.now(UTC), self.fleet(stack, source, seed=seed)
        stack.supervisor.start(service)
        fleet.build_history(db.engine(stack.database_url), now=now)
        stack.supervisor.wait_ready(service)
        fleet.register_past(now=now)
        if self.models > 1:
            self.second = batch.BatchFleet(
                Fleet(seed + OTHER_FLEET), mlflow=self.server, models_dir=stack.data / "batch", log=self.lake, seed=seed
            )
            self.second.seed_past(now=now)
            self.second.register_past(now=now)
        self.server.count_moves()
        return fleet

    def fleet(self, stack: Stack, source: Source, *, seed: int) -> MlflowFleet:
        made = simulator_for(stack, source, seed=seed, kind=partial(MlflowFleet, mlflow=self.server))
        assert isinstance(made, MlflowFleet)
        return made

    @contextlib.contextmanager
    def at_work(self, stack: Stack) -> Iterator[None]:
        """Its pipelines run, and MLflow tells the gateway of what happens to aliases."""
        config = Settings(data_dir=stack.data)
        with Team(self.server, db.engine(stack.database_url), config.models_dir, self.lake, MODEL) as self._team:
            gateway = stack.env()["MLRUNBOOK_GATEWAY_URL"]
            self.server.tell(gateway)
            self._learn(stack, MODEL)
            if self.second:
                self._learn(stack, self.second.model)
                self.second.gateway = batch.Gateway(gateway, stack.token("gateway-intake"))
            yield

    def go_back(self, stack: Stack, restore: Callable[[], None]) -> None:
        """For the next fault: the version of before serves, nothing is staged, the rest is as `restore` makes it, and the runbook knows of
        no move since."""
        assert self._team is not None
        if self.server.client.aliases(MODEL).get(SERVING) != MlflowFleet.good_version:
            self.server.set_alias(MODEL, SERVING, MlflowFleet.good_version)
        if CANDIDATE in self.server.client.aliases(MODEL):
            self.server.set_alias(MODEL, CANDIDATE, None)
        with self._team.still():
            restore()
        self._team.work()
        with db.transaction(db.engine(stack.database_url)) as conn:
            conn.execute(delete(moves_table).where(moves_table.c.model == MODEL))
        self._learn(stack, MODEL)

    def _learn(self, stack: Stack, model: str) -> None:
        """Until the runbook has seen what serves: a first look after the fault would take the bad version for what always served."""
        deadline, engine = time.monotonic() + LEARNS_WITHIN_S, db.engine(stack.database_url)
        told_at = 0.0
        while time.monotonic() < deadline:
            with db.transaction(engine) as conn:
                seen = [move for move in registry_moves.of_model(conn, model) if move.alias == SERVING]
            if seen:
                return
            if time.monotonic() - told_at > 5.0:  # a delivery may be lost; the alias names what it named
                told_at = time.monotonic()
                self.server.set_alias(model, SERVING, MlflowFleet.good_version)
            time.sleep(0.2)
        raise Transient(f"the gateway has heard of no alias within {LEARNS_WITHIN_S:.0f} s; look at {stack.data / 'logs'}")

    def applied(self, model: str = MODEL) -> dict[str, int]:
        return self.server.applied(model)

    def differences(self, fault: Fault, facts: dict[str, Any]) -> list[str]:
        """Where what MLflow counted is not what the fault calls for, once."""
        wanted = {FixPath.ROLLBACK: {"rollback": 1}, FixPath.RETRAIN: {"register": 1, "staging": 1, "promote": 1}}
        path = fault.truth.path
        expected = wanted.get(path, {}) if path else {}
        counted = {kind: count for kind, count in facts["platform_applied"].items() if count}
        return [] if counted == expected else [f"MLflow counted {counted or 'no change'}, should be {expected or 'none'}"]

    def introduced(self, model: str) -> list[str]:
        return [
            f"MLflow [cyan]{self.server.url}[/]: {model} has versions 1 and 2, and {SERVING} names {MlflowFleet.good_version}",
            f"Its predictions are logged in Parquet files: [cyan]{self.lake / model}[/]",
        ]

    def afterwards(self, model: str) -> str:
        """As MLflow has it."""
        moves = [f"from {m.before} to {m.after}" for m in self.server.moves(model) if m.alias == SERVING and m.before and m.after]
        names, what = self.server.client.aliases(model).get(SERVING), f"In MLflow, {SERVING} of {model}"
        return f"{what} moved {', then '.join(moves)}." if moves else f"{what} did not move: it names version {names}."
