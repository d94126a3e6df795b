"""The gateway's application on a real store, with a clock to set and nothing behind the other ports."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from sqlalchemy import Engine

from mlrunbook.base import tokens
from mlrunbook.base.clocks import elapsed
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.elapsed import Elapsed
from mlrunbook.domain.errors import Transient
from mlrunbook.domain.observed import ModelVersion, ServingState
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.response.world import World

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette would rather have another HTTP client than the one the product uses
    from fastapi.testclient import TestClient

_models = itertools.count(1)


@dataclass
class Clock:
    at: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def elapsed(self) -> Elapsed:
        total_s = self().timestamp()
        return Elapsed("this boot", total_s, total_s)

    def __call__(self) -> datetime:
        return self.at

    def pass_(self, **span: float) -> None:
        self.at += timedelta(**span)


class Absent:
    """A port nothing may touch here: the gateway's requests must work without the platform, the runtime and Prefect."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the gateway called {name}")


class Away(Absent):
    """A platform that does not answer: every name is accepted, and the gateway's requests work without it."""

    def models(self) -> list[str]:
        raise Transient("nothing answers")

    def versions(self, model: str) -> list[ModelVersion]:
        raise Transient("nothing answers")


class Silent(Absent):
    """A runtime that does not answer: people order all the same."""

    def observe(self, model: str) -> ServingState:
        raise Transient("nothing answers")


def world_on(engine: Engine, clock: Clock, policy: Policy | None = None) -> World:
    nothing = cast(Any, Absent())
    return World(
        engine=engine,
        platform=cast(Any, Away()),
        runtime=cast(Any, Silent()),
        notifier=nothing,
        orchestrator=nothing,
        policy=policy or Policy(),
        lease_s=30,
        now=clock,
        elapsed=clock.elapsed if isinstance(clock, Clock) else elapsed,
    )


@pytest.fixture(scope="module")
def module_clock() -> Clock:
    return Clock()


@pytest.fixture
def clock(module_clock: Clock) -> Clock:
    """Set to the real time at the start of each test."""
    module_clock.at = Clock().at
    return module_clock


@pytest.fixture(scope="module")
def world(engine: Engine, module_clock: Clock) -> World:
    return world_on(engine, module_clock)


@pytest.fixture
def model() -> str:
    """A model of this test's own."""
    return f"pump_failure_{next(_models)}"


@dataclass(frozen=True)
class Keys:
    """Authorization headers of people and systems."""

    engine: Engine

    def of(self, name: str, *scopes: Scope, role: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(name, *scopes, role=role)}"}

    def token(self, name: str, *scopes: Scope, role: str | None = None) -> str:
        with transaction(self.engine) as conn:
            return tokens.create(conn, name=name, scopes=scopes or tuple(Scope), role=role)


@pytest.fixture(scope="module")
def keys(engine: Engine) -> Keys:
    return Keys(engine)


@pytest.fixture(scope="module")
def anonymous(world: World) -> Iterator[TestClient]:
    with TestClient(create_app(world), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def _signed_in(anonymous: TestClient, keys: Keys) -> Iterator[TestClient]:
    with TestClient(anonymous.app, headers=keys.of("the lead", role="ml_team_lead"), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(_signed_in: TestClient, clock: Clock) -> TestClient:
    """Signed in as the team lead, with every scope."""
    return _signed_in
