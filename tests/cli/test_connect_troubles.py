"""What keeps `mlrunbook connect` from looking: each is one line with what to do, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse
from typer.testing import Result

from mlrunbook.base.policy_file import load, warnings
from mlrunbook.cli.connect import replace_file
from mlrunbook.domain.errors import Invalid
from tests.cli.conftest import Cli
from tests.fake_kubernetes import FakeKubernetes, kubeconfig, serving
from tests.served import served


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "runbook.yaml"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    (tmp_path / "home").mkdir()
    return Cli({"MLRUNBOOK_HOME": str(tmp_path / "home"), "MLRUNBOOK_DATA_DIR": str(tmp_path / "data"), "no_proxy": "*"})


@contextmanager
def registry(status: int = 200, models: tuple[str, ...] = (), **how: object) -> Iterator[str]:
    """What MLflow answers where the test is not about MLflow."""
    app = FastAPI()

    @app.get("/api/2.0/mlflow/registered-models/search")
    def search() -> JSONResponse:
        if status != 200:
            return JSONResponse({"error_code": "PERMISSION_DENIED", "message": "no"}, status)
        return JSONResponse({"registered_models": [{"name": name} for name in models]} if models else {})

    @app.get("/version")
    def version() -> PlainTextResponse:
        return PlainTextResponse("3.17.2")

    @app.get("/api/2.0/mlflow/model-versions/search")
    def versions() -> dict[str, str]:
        return {}

    with served(app, **how) as url:
        yield url


def failed(result: Result, file: Path) -> str:
    assert result.exit_code == 1, result.output
    assert not file.exists()
    return " ".join((result.output + str(result.exception or "")).split())


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_are_not_accepted(cli: Cli, file: Path, status: int) -> None:
    with registry(status) as url:
        said = failed(cli("connect", "--mlflow", url, "--write", str(file)), file)
    assert f"answered {status}" in said
    assert "MLRUNBOOK_CONNECTION_MLFLOW_TOKEN" in said


def test_an_empty_registry(cli: Cli, file: Path) -> None:
    with registry() as url:
        assert "has no registered models" in failed(cli("connect", "--mlflow", url, "--write", str(file)), file)


def test_nothing_that_answers(cli: Cli, file: Path, dead_port: int) -> None:
    where = f"http://127.0.0.1:{dead_port}"
    said = failed(cli("connect", "--mlflow", where, "--prometheus", where, "--write", str(file)), file)
    assert "is MLflow up" in said
    assert "is Prometheus up" in said
    assert "MLflow, Prometheus could not be looked at" in said


def test_something_else_than_what_was_named(cli: Cli, file: Path) -> None:
    with registry(models=("churn",)) as url:
        said = failed(cli("connect", "--prometheus", url, "--model", "churn", "--write", str(file)), file)
    assert "is MLRUNBOOK_CONNECTION_PROMETHEUS its address?" in said


def test_a_permission_in_the_cluster_is_named_with_its_rule(cli: Cli, file: Path, tmp_path: Path) -> None:
    fake = FakeKubernetes(allowed=set())
    with serving(fake) as url, registry(models=("churn",)) as mlflow:
        config = kubeconfig(tmp_path / "config", url, "worker")
        flags = ["--mlflow", mlflow, "--kube-context", "worker", "--write", str(file)]
        said = failed(cli("connect", *flags, KUBECONFIG=str(config)), file)
        assert 'resources: ["deployments"], verbs: ["list"]' in said
        fake.allowed = {("apps", "deployments", "list"), ("", "services", "list")}
        found = cli("connect", *flags, KUBECONFIG=str(config))
    assert found.exit_code == 0, found.output
    assert 'resources: ["configmaps"], verbs: ["list"]' in found.output
    assert file.exists()


@contextmanager
def lake(folder: Path, at: str, *more: str, outcomes: bool = True) -> Iterator[str]:
    """A log of a hundred predictions. `at`: SQL of their time, of a row `i`."""
    path = folder / "lake.duckdb"
    with duckdb.connect(str(path)) as db:
        rows = ", ".join([f"{at}", "'r' || i AS request_id", "(i % 90 + 1) / 100.0 AS score", *more])
        db.execute(f"CREATE TABLE scores AS SELECT {rows} FROM range(100) AS t(i)")
        if outcomes:
            db.execute("CREATE TABLE labels AS SELECT 'r' || i AS request_id, i % 7 = 0 AS y_true FROM range(100) AS t(i)")
    yield f"duckdb://{path}"


def naive(hours: float) -> str:
    newest = datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=hours)
    return f"TIMESTAMP '{newest:%Y-%m-%d %H:%M:%S}' - to_minutes(i) AS scored_at"


def test_times_of_another_zone(cli: Cli, file: Path, tmp_path: Path) -> None:
    with lake(tmp_path, naive(2)) as url:
        flags = ["--predictions", url, "--model", "churn", "--write", str(file)]
        found = cli("connect", *flags)
        assert "UTC+2" in found.output
        assert "UTC+2" not in cli("connect", *flags, "--time-zone", "Europe/Berlin").output
    assert load(file).models["churn"].platform.predictions.time_zone == "Europe/Berlin"  # type: ignore[union-attr]


def test_no_outcome_anywhere_and_a_time_that_is_text(cli: Cli, file: Path, tmp_path: Path) -> None:
    with lake(tmp_path, "'2026-11-30' AS scored_at", "now() AS ts", outcomes=False) as url:
        found = cli("connect", "--predictions", url, "--model", "churn", "--write", str(file))
    assert found.exit_code == 0, found.output
    assert "no outcome column in scores" in " ".join(found.output.split())
    assert any("predictions.outcomes.outcome" in line for line in warnings(file)), "policy check says what nobody has decided"


def test_a_time_that_is_a_number_is_read_by_a_query_that_works(cli: Cli, file: Path, tmp_path: Path) -> None:
    from mlrunbook.adapters.warehouse.log import WarehouseLog

    now = datetime.now(UTC)
    with lake(tmp_path, f"{int(now.timestamp() * 1000)} - i * 1000 AS ts", "'1' AS model_version") as url:
        found = cli("connect", "--predictions", url, "--model", "churn", "--write", str(file))
        assert found.exit_code == 0, found.output
        part = load(file).models["churn"].platform.predictions  # type: ignore[union-attr]
        assert part is not None
        assert part.query is not None
        log = WarehouseLog("predictions", url, lambda model: part)
        window = log.metrics("churn", since=now - timedelta(hours=1), until=now + timedelta(seconds=1)).current
        assert (window.predictions, window.labelled) == (100, 100)
        assert cli("connect", "--check", MLRUNBOOK_CONNECTION_PREDICTIONS=url).exit_code == 0


def test_a_file_that_does_not_hold_is_not_written_to(cli: Cli, file: Path) -> None:
    file.write_text("models: {pump: {owner: us}}\n")
    with registry(models=("churn",)) as url:
        found = cli("connect", "--mlflow", url, "--write", str(file))
    assert found.exit_code == 1
    assert file.read_text() == "models: {pump: {owner: us}}\n"


def test_wrong_policies_are_told_before_anything_is_looked_at(cli: Cli, file: Path) -> None:
    file.write_text("nonsense: 1\n")
    found = cli("connect", "--mlflow", "http://127.0.0.1:9", "--write", str(file))
    assert (found.exit_code, "nonsense" in str(found.output) + str(found.exception)) == (1, True)


def test_what_somebody_writes_while_connect_looks_stays_and_a_link_stays_a_link(tmp_path: Path) -> None:
    kept, link = tmp_path / "kept.yaml", tmp_path / "runbook.yaml"
    kept.write_text("# theirs\n")
    link.symlink_to(kept)
    with pytest.raises(Invalid, match="changed"):
        replace_file(link, "", "# ours\n")
    assert kept.read_text() == "# theirs\n"
    replace_file(link, "# theirs\n", "# theirs\n# ours\n")
    assert link.is_symlink()
    assert kept.read_text() == "# theirs\n# ours\n"


def test_of_a_registry_with_very_many_models_those_that_are_named_are_connected(cli: Cli, file: Path) -> None:
    with registry(models=tuple(f"m{i}" for i in range(201))) as url:
        assert "--model" in failed(cli("connect", "--mlflow", url, "--write", str(file)), file)
        result = cli("connect", "--mlflow", url, "--model", "m99", "--write", str(file))
    assert result.exit_code == 0, result.output
    assert set(load(file).models) == {"m99"}
