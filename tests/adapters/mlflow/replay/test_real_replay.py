"""Models of scikit-learn in a real `mlflow server`, predictions in a file: each version scores the logged requests as it does by itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import mlflow.sklearn
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from mlrunbook import bootstrap
from mlrunbook.base.settings import Settings
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.evaluation.rollback_target import choose_target
from mlrunbook.domain.policy.connections import (
    Columns,
    Connection,
    Kind,
    OutcomeColumns,
    PlatformParts,
    PredictionsPart,
    RegistryPart,
    Replay,
    ReplayPart,
    Serving,
)
from mlrunbook.domain.policy.judging import DropPolicy
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.ports import ModelPlatform
from tests.mlflow_server import mlflow_server

GOOD, BAD, LABELS, HOSTILE = "1", "2", "3", "4"
AGES = np.linspace(18, 90, 400)
ROWS = pd.DataFrame({"age": AGES, "income": np.tile([1.0, 2.0, 3.0, 4.0], 100)})
TRUTH = ((ROWS.age > 60) ^ (ROWS.index % 40 == 0)).to_numpy()


class Hostile(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        import socket

        return [float(socket.create_connection(("127.0.0.1", 1)) is not None)] * len(model_input)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, object]]]:
    sound = LogisticRegression(max_iter=500).fit(ROWS, TRUTH)
    made = {GOOD: sound, BAD: LogisticRegression(max_iter=500).fit(ROWS, np.roll(TRUTH, 200)), LABELS: LinearSVC().fit(ROWS, TRUTH)}
    signature = infer_signature(ROWS)
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        mlflow.set_tracking_uri(url)
        given = {"registered_model_name": "churn", "signature": signature, "pip_requirements": []}
        for model in made.values():
            mlflow.sklearn.log_model(model, name="model", **given)
        mlflow.pyfunc.log_model(name="model", python_model=Hostile(), **given)
        mlflow.set_tracking_uri(None)
        yield url, dict(made)


@pytest.fixture
def platform(models: tuple[str, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelPlatform:
    """The log calls the age otherwise than the model does."""
    return platform_with(ReplayPart(Replay.MLFLOW, inputs={"age": "customer_age"}), models[0], tmp_path, monkeypatch)


def platform_with(part: ReplayPart, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModelPlatform:
    start = datetime.now(UTC) - timedelta(hours=20)
    logged = ROWS.rename(columns={"age": "customer_age"})
    at = [(start + timedelta(minutes=i)).isoformat() for i in range(len(ROWS))]
    logged.assign(prediction_id=range(len(ROWS)), at=at, score=0.5, outcome=TRUTH).to_csv(folder / "log.csv", index=False)
    monkeypatch.setenv("MLRUNBOOK_CONNECTION_ML", url)
    monkeypatch.setenv("MLRUNBOOK_CONNECTION_LAKE", f"duckdb:///{folder}")
    outcomes = OutcomeColumns(reported_at=None)
    log = PredictionsPart("lake", table="log.csv", columns=Columns(version=None), outcomes=outcomes)
    parts = PlatformParts(RegistryPart("ml"), log, replay=part, serving=Serving.NONE)
    connections = {"ml": Connection(Kind.MLFLOW), "lake": Connection(Kind.SQL)}
    policy = Policy(connections=connections, models={"churn": ModelRules(platform=parts)})
    config = Settings(http_timeout_s=60)
    return bootstrap.platform(config, policy, bootstrap.runtime(config, policy))


def test_each_version_scores_the_logged_requests_as_it_does_by_itself_and_the_sound_one_is_chosen(
    platform: ModelPlatform, models: tuple[str, dict[str, object]]
) -> None:
    replayed = platform.replay("churn", versions=[BAD, GOOD, LABELS, HOSTILE, "9"])
    bad, good, labels, hostile, unknown = replayed.versions
    assert [row.features["income"] for row in replayed.rows] == list(ROWS.income)
    for seen, version in ((good, GOOD), (bad, BAD)):
        assert seen.scores == pytest.approx(models[1][version].predict_proba(ROWS)[:, 1])  # type: ignore[attr-defined]
        assert (seen.problem, seen.labels_only) == (None, False)
        assert len(seen.digest or "") == 64
        assert (seen.size_bytes or 0) > 0
        assert (seen.latency_ms or 0) > 0
    assert (labels.labels_only, set(labels.scores)) == (True, {0.0, 1.0})
    assert np.array_equal(np.array(labels.scores) == 1, models[1][LABELS].predict(ROWS))  # type: ignore[attr-defined]
    for failed in (hostile, unknown):
        assert failed.scores == ()
        assert failed.problem
    chosen = choose_target(replayed, current=BAD, threshold=0.5, baseline_f1=None, policy=DropPolicy())
    assert chosen.target in (GOOD, LABELS)
    assert chosen.ranking[0].f1 == pytest.approx(max(v.f1 or 0 for v in chosen.ranking))


def test_it_is_off_until_a_model_opts_in(models: tuple[str, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        platform_with(ReplayPart(), models[0], tmp_path, monkeypatch).replay("churn", versions=[GOOD])


def test_an_artefact_beyond_the_limit_is_not_run(
    models: tuple[str, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ReplayPart(Replay.MLFLOW, inputs={"age": "customer_age"}, most_size_mb=0.0001)
    (seen,) = platform_with(small, models[0], tmp_path, monkeypatch).replay("churn", versions=[GOOD]).versions
    assert "most_size_mb" in (seen.problem or "")


def test_an_input_that_the_log_does_not_carry_is_named(
    models: tuple[str, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (seen,) = platform_with(ReplayPart(Replay.MLFLOW), models[0], tmp_path, monkeypatch).replay("churn", versions=[GOOD]).versions
    assert "age" in (seen.problem or "")
