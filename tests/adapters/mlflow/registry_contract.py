"""What the registry over MLflow must do, whether MLflow is real or the fake that the flow's tests use: one suite for both."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import Engine

from mlrunbook.adapters.composed_platform import ComposedPlatform, Parts
from mlrunbook.adapters.mlflow.client import MlflowClient
from mlrunbook.adapters.mlflow.registry import MlflowRegistry
from mlrunbook.adapters.no_runtime import NoRuntime
from mlrunbook.diagnostics.platform_contract import CHECKS, Check, NotRun, Subject
from mlrunbook.domain.errors import NotFound, Unknown
from mlrunbook.domain.policy.connections import Connection, Kind, PlatformParts, RegistryPart, Replay, ReplayPart, Serving
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.ports import ServingRuntime
from mlrunbook.response.measurement.registry_ledger import StoreLedger
from tests.fakes import Clock, FileWorld

CONNECTION = "ml"
_names = itertools.count(1)
OF_THE_REGISTRY = frozenset({"status", "models", "changes", "versions", "rollback", "register", "stage", "promote"})


class Server(Protocol):
    """What people do to MLflow, past us."""

    def client(self, *, page: int = 200) -> MlflowClient: ...
    def create(self, name: str, versions: int = 2, **aliases: str) -> None: ...
    def add_version(self, name: str) -> str: ...
    def tag(self, name: str, version: str, **tags: str) -> None: ...
    def set_alias(self, name: str, alias: str, version: str) -> None: ...
    def delete_version(self, name: str, version: str) -> None: ...
    def aliases(self, name: str) -> Mapping[str, str]: ...


def policy_with(part: RegistryPart | None = None, *, name: str = "*", serving: Serving = Serving.NONE) -> Policy:
    parts = PlatformParts(registry=part or RegistryPart(CONNECTION), serving=serving, replay=ReplayPart(Replay.REST))
    return Policy(connections={CONNECTION: Connection(Kind.MLFLOW)}, models={name: ModelRules(platform=parts)})


def registry_of(
    server: Server, engine: Engine, clock: Clock, policy: Policy | None = None, runtime: ServingRuntime | None = None, page: int = 200
) -> MlflowRegistry:
    client = server.client(page=page)
    return MlflowRegistry(policy or policy_with(), lambda _: client, StoreLedger(lambda: engine, clock), runtime or NoRuntime(), clock)


class RegistryContract:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def model(self, server: Server) -> str:
        """Two versions, the second serves."""
        name = f"churn-{next(_names)}"
        server.create(name, versions=2, champion="2")
        return name

    @pytest.fixture
    def registry(self, server: Server, engine: Engine, clock: Clock) -> MlflowRegistry:
        return registry_of(server, engine, clock)

    @staticmethod
    def _back(registry: MlflowRegistry, model: str, to: str = "1", key: str = "one") -> str:
        done = registry.rollback(model, target_version=to, reason="F1 fell", rolled_back_by="mlrunbook", idempotency_key=f"{model}-{key}")
        return done.serving_version

    def test_what_the_alias_names_serves_and_the_first_look_knows_no_version_before(self, registry: MlflowRegistry, model: str) -> None:
        seen = registry.status(model)
        assert (seen.serving_version, seen.previous_version, seen.staging_version) == ("2", None, None)
        assert (seen.server_healthy, seen.server_version, seen.deployed_at) == (True, None, None)

    def test_a_model_that_is_not_registered_is_not_found(self, registry: MlflowRegistry) -> None:
        for read in (registry.status, registry.versions, lambda m: registry.changes(m, since=datetime.now(UTC))):
            with pytest.raises(NotFound, match="nobody"):
                read("nobody")

    def test_every_model_is_listed_over_pages(self, server: Server, engine: Engine, clock: Clock, model: str) -> None:
        names = {model, *(f"{model}-{i}" for i in range(4))}
        for name in names - {model}:
            server.create(name, versions=1)
        assert names <= set(registry_of(server, engine, clock, page=2).models())

    def test_a_model_may_have_another_name_there(self, server: Server, engine: Engine, clock: Clock) -> None:
        name = f"Churn EU {next(_names)}"
        server.create(name, versions=1, champion="1")
        registry = registry_of(server, engine, clock, policy_with(RegistryPart(CONNECTION, name=name), name="churn_eu"))
        assert list(registry.models()) == ["churn_eu"]
        assert registry.status("churn_eu").serving_version == "1"

    def test_versions_are_text_and_oldest_first_over_pages(self, server: Server, engine: Engine, clock: Clock, model: str) -> None:
        for _ in range(9):
            server.add_version(model)
        found = registry_of(server, engine, clock, page=3).versions(model)
        assert [one.version for one in found] == [str(n) for n in range(1, 12)]

    def test_training_window_and_threshold_come_from_tags_and_params_and_features_from_the_signature(
        self, server: Server, registry: MlflowRegistry, model: str
    ) -> None:
        server.tag(model, "1", trained_from="2026-01-01", **{"mlrunbook.trained_to": "2026-02-01T00:00:00+01:00"})
        first, second = registry.versions(model)
        assert first.trained_from == datetime.fromisoformat("2026-01-01T00:00:00+00:00")
        assert first.trained_to == datetime.fromisoformat("2026-01-31T23:00:00+00:00")
        assert (first.features, first.threshold, first.asset_types) == (("age", "income"), 0.4, None)
        assert (second.trained_from, second.trained_to) == (None, None)
        assert second.unseen_from == second.registered_at

    def test_a_rollback_moves_the_alias_once_and_is_one_change(
        self, server: Server, registry: MlflowRegistry, model: str, clock: Clock
    ) -> None:
        registry.status(model)
        clock.advance(minutes=5)
        assert self._back(registry, model) == "1"
        assert self._back(registry, model) == "1"
        assert server.aliases(model)["champion"] == "1"
        (change,) = registry.changes(model, since=clock.at - timedelta(hours=1))
        assert (change.kind, change.ref, change.author, change.at) == ("rollback", "1", "mlrunbook", clock.at)
        seen = registry.status(model)
        assert (seen.previous_version, seen.deployed_at) == ("2", clock.at)

    def test_the_same_key_moves_nothing_back_that_somebody_has_moved_since(
        self, server: Server, registry: MlflowRegistry, model: str
    ) -> None:
        self._back(registry, model)
        server.set_alias(model, "champion", "2")
        assert self._back(registry, model) == "2"
        assert server.aliases(model)["champion"] == "2"

    def test_a_version_that_is_not_there_is_not_found_and_what_serves_goes_on(
        self, server: Server, registry: MlflowRegistry, model: str
    ) -> None:
        for version in ("7", "v1.5.0", "01"):
            with pytest.raises(NotFound, match="there are: 1, 2"):
                self._back(registry, model, version)
        assert server.aliases(model) == {"champion": "2"}

    def test_promotion_empties_the_staging_slot(self, server: Server, registry: MlflowRegistry, model: str) -> None:
        third = server.add_version(model)
        staged = registry.stage(model, version=third, staged_by="mlrunbook", idempotency_key=f"{model}-s")
        assert (staged.staging_version, server.aliases(model)["challenger"]) == ("3", "3")
        done = registry.promote(model, version=third, reason="better", promoted_by="mlrunbook", idempotency_key=f"{model}-p")
        assert (done.serving_version, done.staging_version, done.previous_version) == ("3", None, "2")
        assert server.aliases(model) == {"champion": "3"}

    def test_staging_is_emptied(self, server: Server, registry: MlflowRegistry, model: str) -> None:
        registry.stage(model, version="1", staged_by="mlrunbook", idempotency_key=f"{model}-s")
        registry.stage(model, version=None, staged_by="mlrunbook", idempotency_key=f"{model}-t")
        registry.stage(model, version=None, staged_by="mlrunbook", idempotency_key=f"{model}-u")
        assert server.aliases(model) == {"champion": "2"}

    def test_what_somebody_moves_is_found_by_the_next_look(
        self, server: Server, registry: MlflowRegistry, model: str, clock: Clock
    ) -> None:
        registry.status(model)
        third = server.add_version(model)
        for version in (third, "1"):
            clock.advance(minutes=1)
            server.set_alias(model, "champion", version)
            registry.status(model)
        found = registry.changes(model, since=clock.at - timedelta(hours=1))
        assert [(c.kind, c.ref) for c in found] == [("deployment", "1"), ("deployment", "3")]
        clock.advance(minutes=1)
        server.set_alias(model, "champion", "2")
        assert registry.changes(model, since=clock.at)[0].kind == "rollback"  # it has served before
        assert registry.status(model).previous_version == "1"

    def test_a_deleted_serving_version_is_a_change_and_another_one_can_be_made_to_serve(
        self, server: Server, registry: MlflowRegistry, model: str, clock: Clock
    ) -> None:
        registry.status(model)
        clock.advance(minutes=1)
        server.delete_version(model, "2")
        with pytest.raises(NotFound, match="version 2, which served, was deleted"):
            registry.status(model)
        (change,) = registry.changes(model, since=clock.at - timedelta(hours=1))
        assert change.kind == "config"
        assert self._back(registry, model) == "1"

    def test_an_alias_that_was_taken_away_is_told_from_a_deleted_version(
        self, server: Server, registry: MlflowRegistry, model: str
    ) -> None:
        registry.status(model)
        server.client().write("DELETE", "/registered-models/alias", {"name": model, "alias": "champion"})
        with pytest.raises(NotFound, match="no longer carries the alias champion"):
            registry.status(model)

    def test_the_number_of_a_deleted_version_is_given_to_no_other(self, server: Server, registry: MlflowRegistry, model: str) -> None:
        server.delete_version(model, "2")
        assert server.add_version(model) == "3"
        assert [one.version for one in registry.versions(model)] == ["1", "3"]

    def test_of_four_who_move_it_at_once_the_ledger_ends_with_what_the_registry_names(
        self, server: Server, registry: MlflowRegistry, model: str, clock: Clock
    ) -> None:
        registry.status(model)
        unexpected: list[BaseException] = []

        def move(i: int) -> None:
            try:
                with suppress(Unknown):  # another one came between: read back, else a person is asked
                    self._back(registry, model, str(1 + i % 2), f"m{i}")
            except BaseException as error:
                unexpected.append(error)

        movers = [threading.Thread(target=move, args=(i,)) for i in range(4)]
        for mover in movers:
            mover.start()
        for mover in movers:
            mover.join()
        assert unexpected == []
        serving = registry.status(model).serving_version
        assert serving == server.aliases(model)["champion"]
        assert registry.status(model).previous_version in ("1", "2")
        assert registry.status(model).previous_version != serving

    def test_an_alias_for_people_follows_with_the_version_before(self, server: Server, engine: Engine, clock: Clock, model: str) -> None:
        registry = registry_of(server, engine, clock, policy_with(RegistryPart(CONNECTION, previous_alias="previous")))
        self._back(registry, model)
        assert server.aliases(model) == {"champion": "1", "previous": "2"}

    def test_a_registered_version_is_entered_already_and_an_unknown_one_says_how(self, registry: MlflowRegistry, model: str) -> None:
        assert registry.register(model, version="1", registered_by="mlrunbook", idempotency_key="k").version == "1"
        with pytest.raises(NotFound, match="register_model"):
            registry.register(model, version="9", registered_by="mlrunbook", idempotency_key="k")

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
    def test_with_a_rest_platform_for_the_rest_it_keeps_the_contract_of_a_platform(
        self, check: Check, server: Server, registry: MlflowRegistry, model: str, clock: Clock, tmp_path: Path
    ) -> None:
        rest = FileWorld(tmp_path / "world.json", clock, model=model)
        rest.set(versions=["1", "2"], serving="2", previous="1")
        platform = ComposedPlatform(policy_with(), Parts(rest, True, registry))
        with suppress(NotRun):  # a platform may leave it out
            check.ask(platform, Subject(model, clock.at))
        assert server.aliases(model) == {"champion": "2"}
