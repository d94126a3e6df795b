"""The command line against a real gateway over real HTTP on a real store; nothing runs behind it."""

from __future__ import annotations

import itertools
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Scope
from mlrunbook.cli.main import app
from mlrunbook.domain.actions import Path as ResolutionPath
from mlrunbook.domain.actions import Plan, PlanKind, RollBack
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.local.platform.api import create_app as platform_app
from mlrunbook.store import plans
from tests.fakes import FileWorld, world_of
from tests.local.platform.kit import log, new_model, release, running, settings_for
from tests.served import served

_models = itertools.count(1)
COMMAND = [sys.executable, "-m", "mlrunbook.cli"]


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Cli:
    """Runs `mlrunbook ...` with no environment of ours but `env`."""

    env: dict[str, str]

    def __call__(self, *args: str, **env: str) -> Result:
        ours = {key: None for key in os.environ if key.startswith(("MLRUNBOOK_", "PREFECT_"))}
        return CliRunner().invoke(app, list(args), env={**ours, **self.env, **env}, prog_name="mlrunbook")


def environment(cli: Cli) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLRUNBOOK_", "PREFECT_"))}
    return clean | cli.env


def one_line(said: str) -> str:
    """An error is one line that starts as one."""
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said
    return said


@pytest.fixture(scope="module")
def gateway_url(engine: Engine, scratch: Path) -> Iterator[str]:
    ours = Policy(models={"pump_failure_*": ModelRules(owner="the tests")})
    world = world_of(engine, FileWorld(scratch / f"cli-{id(engine)}.json", now), now, policy=ours)
    with served(create_app(world)) as url:
        yield url


@pytest.fixture(scope="module")
def platform(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URL of the platform in the box and a model that it serves."""
    settings, model = settings_for(tmp_path_factory.mktemp("data"), engine, model_server_url="http://127.0.0.1:9"), new_model()
    release(engine, settings.models_dir, model, "v1.5.0", "v2.0.0")
    log(engine, model, tp=3, tn=20, at=datetime.now(UTC) - timedelta(minutes=5), version="v2.0.0")
    with running(platform_app(settings, engine, evaluate_every_s=None), {}) as client:
        yield str(client.base_url).rstrip("/"), model


@pytest.fixture(scope="module")
def token(engine: Engine) -> Callable[..., str]:
    def make(name: str, *scopes: Scope, role: str | None = None) -> str:
        with transaction(engine) as conn:
            return tokens.create(conn, name=name, scopes=scopes or tuple(Scope), role=role)

    return make


@pytest.fixture
def cli(gateway_url: str, database_url: str, token: Callable[..., str], tmp_path: Path) -> Cli:
    """Signed in as the team lead, with every scope."""
    return Cli(
        {
            "MLRUNBOOK_GATEWAY_URL": gateway_url,
            "MLRUNBOOK_GATEWAY_TOKEN": token("the lead", role="ml_team_lead"),
            "MLRUNBOOK_PLATFORM_TOKEN": token("flows", Scope.OPERATE, Scope.READ),
            "MLRUNBOOK_DATABASE_URL": database_url,
            "MLRUNBOOK_DATA_DIR": str(tmp_path),
            "MLRUNBOOK_HOME": str(tmp_path),
        }
    )


@pytest.fixture
def model() -> str:
    """A model of this test's own."""
    return f"pump_failure_{next(_models)}"


@pytest.fixture
def incident(cli: Cli, model: str) -> str:
    """The id of a fresh low incident of `model`."""
    args = ("--severity", "low", "--type", "performance_degradation", "--description", "F1 score dropped from 0.82 to 0.65")
    return cli("report", "--model", model, *args).stdout.split()[0]


@pytest.fixture
def plan(engine: Engine, incident: str, model: str) -> Plan:
    """A rollback that waits for a decision."""
    proposed = Plan(
        incident,
        PlanKind.RESOLUTION,
        model,
        (RollBack(model, "v1.5.0", reason="performance degradation"),),
        ("F1 fell 31 % after the release of v2.0.0",),
        path=ResolutionPath.ROLLBACK,
        expected="v1.5.0 serves; F1 back within 5 %",
        facts={"f1_baseline": 0.82, "f1_now": 0.5649},
    )
    with transaction(engine) as conn:
        plans.propose(conn, proposed, now=now())
    return proposed


@pytest.fixture
def dead_port() -> Iterator[int]:
    """Bound, so that nobody else takes it; not listening, so that it refuses."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
