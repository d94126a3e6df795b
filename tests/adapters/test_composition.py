"""Which adapters stand behind the ports, by policy: a model of which policy says nothing has what it always had."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlrunbook import bootstrap
from mlrunbook.adapters.composed_platform import ComposedPlatform
from mlrunbook.adapters.local.runtime import LocalRuntime
from mlrunbook.adapters.model_platform import HttpPlatform
from mlrunbook.adapters.no_runtime import NoRuntime
from mlrunbook.adapters.routed_runtime import RoutedRuntime
from mlrunbook.base.settings import Settings
from mlrunbook.domain.actions import Action, Configure, Isolate, Restart, RouteTraffic, Scale, UndoRollout
from mlrunbook.domain.errors import Invalid, NotFound, Refused
from mlrunbook.domain.policy.connections import Columns, Connection, Kind, LivePart, PlatformParts, PredictionsPart, RegistryPart, Serving
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import Policy

ML = {"ml": Connection(Kind.MLFLOW)}


def policy_of(serving: Serving | None = None) -> Policy:
    return Policy(connections=ML, models={"churn": ModelRules(platform=PlatformParts(RegistryPart("ml"), serving=serving))})


def test_without_parts_it_is_the_rest_platform_and_the_runtime_of_the_settings() -> None:
    config, policy = Settings(), Policy()
    serving = bootstrap.runtime(config, policy)
    assert type(serving) is LocalRuntime
    assert type(bootstrap.platform(config, policy, serving)) is HttpPlatform


def test_each_model_has_its_own_runtime() -> None:
    serving = bootstrap.runtime(Settings(), policy_of(Serving.NONE))
    assert type(serving) is RoutedRuntime
    assert type(serving.of("churn")) is NoRuntime
    assert type(serving.of("pump")) is LocalRuntime


def test_a_connection_without_an_address_is_refused_by_the_variables_name_when_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLRUNBOOK_CONNECTION_ML", raising=False)
    config, policy = Settings(), policy_of(Serving.NONE)
    platform = bootstrap.platform(config, policy, bootstrap.runtime(config, policy))
    assert type(platform) is ComposedPlatform
    with pytest.raises(Invalid, match="MLRUNBOOK_CONNECTION_ML is not set"):
        platform.status("churn")


@pytest.mark.parametrize(
    "action",
    [
        Scale("churn", 0),
        RouteTraffic("churn", "1"),
        Configure("churn", {"threshold": 0.4}),
        Restart("churn", "r"),
        UndoRollout("churn", 3),
        Isolate("churn", True),
    ],
    ids=lambda action: action.kind,
)
def test_what_nobody_manages_is_refused_with_what_a_person_would_run(action: Action) -> None:
    with pytest.raises(Refused, match="By hand"):
        NoRuntime().dry_run("churn", [action])


def test_nothing_of_a_server_that_nobody_manages_is_seen() -> None:
    runtime: Any = NoRuntime()
    for read in (runtime.observe, runtime.read_config, runtime.logs, runtime.resources):
        with pytest.raises(NotFound):
            read("churn")
    assert (runtime.instances("churn"), runtime.revisions("churn"), set(runtime.preserve("churn"))) == ([], [], {"serving.missing"})


def test_what_is_asked_of_a_log_or_of_the_monitoring_goes_to_the_connection_of_the_models_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`churn` has both, `fraud` a registry alone."""
    (tmp_path / "predictions.csv").write_text("prediction_id,at,score,outcome\n1,2026-03-29T00:00:00Z,0.9,true\n")
    monkeypatch.setenv("MLRUNBOOK_CONNECTION_LAKE", f"duckdb:///{tmp_path}")
    monkeypatch.delenv("MLRUNBOOK_CONNECTION_MON", raising=False)
    log = PredictionsPart("lake", table="predictions.csv", columns=Columns(version=None))
    parts = PlatformParts(RegistryPart("ml"), log, LivePart("mon", error_rate="up"), serving=Serving.NONE)
    fraud = PlatformParts(RegistryPart("ml"), serving=Serving.NONE)
    connections = {**ML, "lake": Connection(Kind.SQL), "mon": Connection(Kind.PROMETHEUS)}
    policy = Policy(connections=connections, models={"churn": ModelRules(platform=parts), "fraud": ModelRules(platform=fraud)})
    platform = bootstrap.platform(Settings(), policy, bootstrap.runtime(Settings(), policy))
    (row,) = platform.prediction_log("churn", limit=5)
    assert (row.score, row.outcome) == (0.9, True)
    seen = platform.metrics("churn", since=row.at - timedelta(minutes=1), until=row.at + timedelta(minutes=1)).current
    assert (seen.predictions, seen.error_rate) == (1, None), "a monitoring that is not set up keeps no outcome from being counted"
    with pytest.raises(NotFound, match="performance is not judged"):
        platform.metrics("fraud")
