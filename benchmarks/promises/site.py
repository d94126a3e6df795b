"""What an attack meets: the three services in this process on a store of their own, with default limits, and an incident."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Engine, create_engine, text

from benchmarks.promises.arena import empty_store
from mlrunbook.base import db, tokens
from mlrunbook.base.settings import Settings
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.local.platform import api as platform_api
from mlrunbook.local.postgres import EmbeddedPostgres
from mlrunbook.local.serving import model_server
from mlrunbook.response.world import World
from tests.fakes import MODEL, Clock, FileWorld, LedgerNotifier, world_of
from tests.response import people
from tests.response.carrying import carry

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette would rather have another HTTP client than the one the product uses
    from fastapi.testclient import TestClient

ALL = tuple(scope for scope in Scope if scope is not Scope.INTAKE)


@dataclass
class Site:
    engine: Engine
    folder: Path
    clock: Clock = field(default_factory=Clock)
    notifier: LedgerNotifier = field(default_factory=LedgerNotifier)
    file_world: FileWorld = field(init=False)
    world: World = field(init=False)

    def __post_init__(self) -> None:
        self.fresh()

    def fresh(self, policy: Policy | None = None) -> Site:
        """An empty store and a bad release that nobody has noticed yet."""
        empty_store(self.engine)
        self.clock, self.notifier = Clock(), LedgerNotifier()
        self.file_world = FileWorld(Path(tempfile.mkdtemp(dir=self.folder)) / "world.json", self.clock)
        self.world = world_of(self.engine, self.file_world, self.clock, notifier=self.notifier, policy=policy)
        return self

    def contained(self) -> str:
        """An incident whose run waits for an approval."""
        incident_id = people.report(self.world)
        assert carry(self.world, incident_id, "run-1") == "pending"
        return incident_id

    def closed(self) -> str:
        incident_id = self.contained()
        people.approve(self.world, incident_id)
        self.clock.advance(minutes=2)
        carry(self.world, incident_id, "run-1")
        people.deliver(self.world)
        return incident_id

    def critical(self) -> str:
        return people.report(self.world, Severity.CRITICAL)

    @property
    def config(self) -> Settings:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        return Settings(data_dir=data)

    def services(self) -> dict[str, FastAPI]:
        return {
            "gateway": create_app(self.world),
            "platform": platform_api.create_app(self.config, self.engine, evaluate_every_s=None),
            "model server": model_server.create_app(self.config, self.engine, model=MODEL),
        }

    def http(self, service: str = "gateway", headers: dict[str, str] | None = None) -> TestClient:
        return TestClient(self.services()[service], raise_server_exceptions=False, headers=headers)

    def key(self, name: str, *scopes: Scope, role: str | None = None, person: str = "") -> dict[str, str]:
        with db.transaction(self.engine) as conn:
            token = tokens.create(conn, name=name, scopes=scopes or ALL, role=role, person=person)
        return {"Authorization": f"Bearer {token}"}

    def sql(self, statement: str, **given: Any) -> list[Any]:
        with self.engine.begin() as conn:
            result = conn.execute(text(statement), given)
            return list(result.all()) if result.returns_rows else []


@contextmanager
def site(postgres: EmbeddedPostgres) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="mlrb-hostile-", dir="/tmp") as folder:
        postgres.create_database("hostile")
        engine = create_engine(db.normalise_url(postgres.url("hostile")), connect_args={"options": "-c timezone=UTC"}, pool_size=20)
        db.upgrade(engine)
        yield Site(engine, Path(folder))
        engine.dispose()
