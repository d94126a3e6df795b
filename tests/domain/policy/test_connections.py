"""What a model's platform is composed of: connections by name, parts by kind."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mlrunbook.domain.policy.connections import Kind, connection_variable
from mlrunbook.domain.policy.policy import Policy

CONNECTIONS = {"registry": {"kind": "mlflow"}, "warehouse": {"kind": "sql"}, "prometheus": {"kind": "prometheus"}}


def policy(**parts: Any) -> Policy:
    return Policy.model_validate({"connections": CONNECTIONS, "models": {"churn": {"platform": parts}}})


def test_a_platform_is_composed_of_named_connections() -> None:
    found = policy(
        registry={"connection": "registry", "name": "churn-prod"},
        predictions={"connection": "warehouse", "table": "predictions", "columns": {"key": "id"}},
        live={"connection": "prometheus", "error_rate": "errors / requests"},
    )
    parts = found.models["churn"].platform
    assert parts is not None
    assert parts.registry is not None
    assert found.connections[parts.registry.connection].kind is Kind.MLFLOW
    assert parts.predictions is not None
    assert (parts.predictions.columns.key, parts.predictions.columns.at) == ("id", "at")


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ({"registry": {"connection": "mlflow"}}, "models.churn.platform.registry.connection"),
        ({"registry": {"connection": "warehouse"}}, "models.churn.platform.registry.connection"),
        ({"live": {"connection": "registry"}}, "models.churn.platform.live.connection"),
        ({"predictions": {"connection": "warehouse"}}, "table"),
        ({"predictions": {"connection": "warehouse", "table": "p", "query": "select 1"}}, "table"),
        ({"predictions": {"connection": "warehouse", "table": "p", "columns": {"score": None}}}, "score"),
        ({"predictions": {"connection": "warehouse", "table": "p", "time_zone": "Mars/Olympus"}}, "Mars/Olympus"),
        ({"predictions": {"connection": "warehouse", "table": "p", "model_column": "model"}}, "model_value"),
        ({"replay": "mlflow"}, "models.churn.platform.replay"),
        ({"replay": {"kind": "mlflow", "python": "venv/bin/python"}}, "replay.python"),
        ({"shadow": "offline"}, "models.churn.platform.shadow"),
        ({"registry": {"connection": "registry", "serving_alias": "latest"}}, "keeps the alias 'latest'"),
        ({"registry": {"connection": "registry", "candidate_alias": "V12"}}, "keeps the alias 'V12'"),
        ({"registry": {"connection": "registry", "serving_alias": "challenger"}}, "must differ"),
        ({"registry": {"connection": "registry", "previous_alias": "Champion"}}, "must differ"),
    ],
)
def test_a_part_that_cannot_work_is_refused_by_its_key(parts: dict[str, Any], names: str) -> None:
    with pytest.raises(ValidationError, match=names.replace(".", r"\.")):
        policy(**parts)


def test_nothing_of_a_model_is_run_unless_it_opts_in() -> None:
    whole = {"registry": {"connection": "registry"}, "predictions": {"connection": "warehouse", "table": "predictions"}}
    kinds = [policy(**whole, **more).models["churn"].platform for more in ({}, {"replay": "rest"}, {"replay": {"kind": "mlflow"}})]
    assert [parts.replay.kind for parts in kinds if parts] == ["none", "rest", "mlflow"]


def test_an_address_is_never_policy() -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate({"connections": {"registry": {"kind": "mlflow", "url": "http://mlflow:5000"}}})
    assert connection_variable("data-lake") == "MLRUNBOOK_CONNECTION_DATA_LAKE"


@pytest.mark.parametrize(
    "models",
    [
        {"churn": "prod", "fraud": "prod"},
        {"churn": "fraud", "fraud": None},
        {"churn-*": "prod"},
    ],
)
def test_two_models_are_never_one_of_the_registry(models: dict[str, str | None]) -> None:
    named = {name: {"platform": {"registry": {"connection": "registry", "name": there}}} for name, there in models.items()}
    with pytest.raises(ValidationError, match=r"alias of the other|one model alone"):
        Policy.model_validate({"connections": CONNECTIONS, "models": named})
