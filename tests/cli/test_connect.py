"""`mlrunbook connect` on a world of real parts: MLflow, DuckDB over Parquet, Prometheus, a cluster's API, Feast's registry."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import httpx
import pandas as pd
import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from typer.testing import Result

from mlrunbook.base.policy_file import load, warnings
from mlrunbook.domain.policy.connections import Serving
from tests.cli.conftest import Cli
from tests.fake_kubernetes import FakeKubernetes, kubeconfig, serving
from tests.kubernetes_kit import Kit
from tests.mlflow_server import mlflow_server
from tests.prometheus.test_end_to_end import free_ports, process
from tests.waiting import until

SIGNATURE = """signature:
  inputs: '[{"type": "long", "name": "tenure_months"}, {"type": "double", "name": "plan_price"}]'
"""


@dataclass
class MlflowKit:
    """The server, and what a training pipeline would do to it."""

    url: str

    def _post(self, path: str, **body: object) -> dict[str, dict[str, str]]:
        answer = httpx.post(f"{self.url}/api/2.0/mlflow/{path}", json=body, trust_env=False, timeout=60)
        assert answer.is_success, answer.text
        return dict(answer.json())

    def register(self, name: str, versions: int, **aliases: int) -> None:
        self._post("registered-models/create", name=name)
        for _ in range(versions):
            info = self._post("runs/create", experiment_id="0")["run"]["info"]  # type: ignore[index]
            artifacts, run_id = info["artifact_uri"], info["run_id"]  # type: ignore[index]
            path = artifacts.partition(":/")[2].strip("/")
            where = f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{path}/model/MLmodel"
            assert httpx.put(where, content=SIGNATURE, trust_env=False, timeout=60).is_success
            self._post("model-versions/create", name=name, source=f"{artifacts}/model", run_id=run_id)
        for alias, version in aliases.items():
            self.alias(name, alias, version)

    def alias(self, name: str, alias: str, version: int | None) -> None:
        body = {"name": name, "alias": alias} | ({"version": str(version)} if version else {})
        method = "POST" if version else "DELETE"
        where = f"{self.url}/api/2.0/mlflow/registered-models/alias"
        assert httpx.request(method, where, json=body, trust_env=False, timeout=60).is_success


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowKit]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        kit = MlflowKit(url)
        kit.register("churn", 2, champion=2, challenger=1)
        kit.register("fraud_detection", 3, production=3)
        yield kit


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log as a nightly job writes it: one folder a day, names of its own, several models."""
    lake, now = tmp_path_factory.mktemp("lake"), datetime.now(UTC)
    rows, truths = [], []
    for i in range(400):
        at = now - timedelta(minutes=3 + 15 * i)
        model, version, yes = ("churn", "2", "churned") if i % 2 else ("fraud_detection", "3", "fraud")
        key, truth = str(uuid.uuid4()), yes if i % 5 == 0 else "active" if model == "churn" else "legit"
        rows.append((key, at, model, version, (i % 97) / 100 + 0.004, i % 60, "EU" if i % 3 else "US", 5.5 + i % 90, at.date()))
        truths.append((key, truth, at + timedelta(hours=20), model))
    names = [
        "inference_id",
        "scored_at",
        "model_name",
        "model_version",
        "predicted_probability",
        "tenure_months",
        "region",
        "latency_ms",
        "day",
    ]
    for day, frame in pd.DataFrame(rows, columns=names).groupby("day"):
        folder = lake / "inference_log" / f"dt={day}"
        folder.mkdir(parents=True)
        frame.drop(columns="day").to_parquet(folder / "part-0.parquet")
    (lake / "labels").mkdir()
    pd.DataFrame(truths, columns=["inference_id", "ground_truth", "label_ts", "model_name"]).to_parquet(lake / "labels" / "all.parquet")
    return lake


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeKubernetes, Path]]:
    fake = FakeKubernetes()
    with serving(fake) as url:
        file = kubeconfig(tmp_path_factory.mktemp("kube") / "config", url, "worker")
        kit = Kit(kubeconfig(tmp_path_factory.mktemp("kube") / "admin", url, "admin"), namespace="ml")
        kit.core.create_namespace({"metadata": {"name": "ml"}})
        for app in ("churn-server", "fraud-server"):
            mounted = [{"name": "config", "configMap": {"name": f"{app}-config"}}] if app == "churn-server" else []
            containers = [{"name": "server", "image": f"registry.example.com/{app}:1"}]
            template = {"metadata": {"labels": {"app": app}}, "spec": {"containers": containers, "volumes": mounted}}
            spec = {"replicas": 1, "selector": {"matchLabels": {"app": app}}, "template": template}
            kit.apps.create_namespaced_deployment("ml", {"metadata": {"name": app}, "spec": spec})
            kit.core.create_namespaced_service(
                "ml", {"metadata": {"name": app}, "spec": {"selector": {"app": app}, "ports": [{"port": 80}]}}
            )
        data = {"serving.json": json.dumps({"threshold": 0.4})}
        kit.core.create_namespaced_config_map("ml", {"metadata": {"name": "churn-server-config"}, "data": data})
        yield fake, file


@contextmanager
def counting(port: int) -> Iterator[None]:
    """A model server that counts its requests as the FastAPI instrumentator does."""
    registry = CollectorRegistry()
    counter = Counter("http_requests_total", "requests", ["handler", "status"], registry=registry)
    Histogram("http_request_duration_seconds", "seconds", ["handler"], registry=registry).labels("/predict").observe(0.03)
    counter.labels("/predict", "2xx").inc(40)
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    assert isinstance(thread, Thread)
    try:
        yield
    finally:
        server.shutdown()


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    port, target = free_ports(2)
    labels = {"targets": [f"127.0.0.1:{target}"], "labels": {"app": "churn-server"}}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [{"job_name": "servers", "static_configs": [labels]}]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as parts:
        parts.enter_context(counting(target))
        options = ["--config.file=prometheus.yml", f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"]
        parts.enter_context(process(tmp_path, "prometheus", *options))
        until(lambda: _has_metric(url, "http_requests_total"))
        yield url


def _has_metric(url: str, name: str) -> bool:
    try:
        found = httpx.get(f"{url}/api/v1/label/__name__/values", trust_env=False, timeout=5).json()
        return name in found.get("data", [])
    except (httpx.HTTPError, ValueError):
        return False


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource
    from feast.types import Float64
    from feast.value_type import ValueType

    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "feature_store.yaml").write_text(
        "project: shop\nprovider: local\nregistry: registry.db\nonline_store: {type: sqlite, path: online.db}\n"
        "entity_key_serialization_version: 3\n"
    )
    frame = pd.DataFrame({"customer": ["c1"], "plan_price": [9.5], "tenure_months": [3.0], "event_timestamp": [datetime.now(UTC)]})
    frame.to_parquet(folder / "plans.parquet")
    customer = Entity(name="customer", join_keys=["customer"], value_type=ValueType.STRING)
    source = FileSource(path=str(folder / "plans.parquet"), timestamp_field="event_timestamp")
    fields = [Field(name="plan_price", dtype=Float64), Field(name="tenure_months", dtype=Float64)]
    FeatureStore(repo_path=str(folder)).apply([customer, FeatureView(name="plans", entities=[customer], schema=fields, source=source)])
    return folder


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    (tmp_path / "home").mkdir()
    return Cli({"MLRUNBOOK_HOME": str(tmp_path / "home"), "MLRUNBOOK_DATA_DIR": str(tmp_path / "data"), "no_proxy": "*"})


def connect(cli: Cli, *flags: str | Path, **env: str) -> Result:
    return cli("connect", *map(str, flags), **env)


def log_flags(lake: Path) -> list[str]:
    return ["--predictions", f"duckdb://{lake}/inference_log/*/*.parquet", "--outcomes", f"duckdb://{lake}/labels"]


@pytest.mark.prometheus
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no Prometheus: apt-get install prometheus")
def test_a_team_that_has_it_all_is_connected_by_one_command(
    cli: Cli, mlflow: MlflowKit, lake: Path, prometheus: str, cluster: tuple[FakeKubernetes, Path], repo: Path, tmp_path: Path
) -> None:
    fake, config = cluster
    file = tmp_path / "home" / "runbook.yaml"
    file.write_text("# ours\ntriage:\n  looks: 4 # one more\n")
    flags = ["--mlflow", mlflow.url, *log_flags(lake), "--prometheus", prometheus]
    flags += ["--kube-context", str(yaml.safe_load(config.read_text())["current-context"]), "--namespace", "ml"]
    said = connect(cli, *flags, "--feast", repo, "--write", file, KUBECONFIG=str(config))
    assert said.exit_code == 0, said.output
    policy = load(file)
    assert file.read_text().startswith("# ours\ntriage:\n  looks: 4 # one more\n")
    assert not warnings(file)
    assert not fake.writes

    churn, fraud = policy.models["churn"], policy.models["fraud_detection"]
    assert churn.platform is not None
    assert churn.platform.registry is not None
    assert churn.platform.predictions is not None
    assert churn.platform.live is not None
    assert churn.cluster is not None
    assert (churn.platform.registry.serving_alias, churn.platform.registry.candidate_alias) == ("champion", "challenger")
    log = churn.platform.predictions
    assert (log.table, log.outcomes_table, log.model_column, log.model_value) == ("inference_log", "labels", "model_name", "churn")
    of = log.columns
    assert (of.key, of.at, of.score, of.version, of.day) == (
        "inference_id", "scored_at", "predicted_probability", "model_version", "dt",
    )  # fmt: skip
    assert (log.outcomes.outcome, log.outcomes.reported_at, log.positive, log.negative) == (
        "ground_truth", "label_ts", ("churned",), ("active",),
    )  # fmt: skip
    assert (churn.cluster.scaled_deployment, churn.cluster.service) == ("churn-server", "churn-server")
    assert (churn.cluster.config_map, churn.cluster.config_key) == ("churn-server-config", "serving.json")
    assert churn.platform.live.requests == 'sum(increase(http_requests_total{app="churn-server"}[{window}]))'
    assert churn.feature_views == ("plans",)
    assert fraud.platform is not None
    assert fraud.platform.live is None
    assert fraud.cluster is not None
    assert (fraud.platform.serving, fraud.cluster.config_map) == (Serving.KUBERNETES, None)
    assert fraud.platform.registry is not None
    assert fraud.platform.registry.serving_alias == "production"

    env = {
        "MLRUNBOOK_CONNECTION_MLFLOW": mlflow.url,
        "MLRUNBOOK_CONNECTION_PREDICTIONS": f"duckdb://{lake}",
        "MLRUNBOOK_CONNECTION_PROMETHEUS": prometheus,
        "MLRUNBOOK_RUNTIME": "kubernetes",
        "MLRUNBOOK_KUBE_NAMESPACE": "ml",
        "MLRUNBOOK_FEATURE_REPO": str(repo),
        "KUBECONFIG": str(config),
    }
    assert all(f"  {name}={value}\n" in said.output for name, value in env.items() if name != "KUBECONFIG")
    same = connect(cli, "--check", **env)
    assert (same.exit_code, same.output.count("drift")) == (0, 0), same.output
    doctor = {(line.get("model"), line["name"]): line for line in json.loads(cli("doctor", "--json", **env).stdout)}
    assert doctor["churn", "path D, threshold"]["said"] == "yes: in configmap/churn-server-config"
    assert doctor["fraud_detection", "path D, threshold"]["said"].startswith("person: ")
    assert (None, "platform") not in doctor, "no REST platform is asked of a team that has none"


@pytest.fixture
def connected(cli: Cli, mlflow: MlflowKit, lake: Path, tmp_path: Path) -> dict[str, str]:
    said = connect(cli, "--mlflow", mlflow.url, *log_flags(lake), "--write", tmp_path / "home" / "runbook.yaml")
    assert said.exit_code == 0, said.output
    return {"MLRUNBOOK_CONNECTION_MLFLOW": mlflow.url, "MLRUNBOOK_CONNECTION_PREDICTIONS": f"duckdb://{lake}"}


def drifts(cli: Cli, env: dict[str, str]) -> tuple[int, set[tuple[str, str]], dict[str, str]]:
    result = connect(cli, "--check", "--json", **env)
    found = json.loads(result.stdout)
    return result.exit_code, {(d["model"], d["part"]) for d in found["drift"]}, found["problems"]


def test_check_finds_what_has_changed_since(cli: Cli, mlflow: MlflowKit, lake: Path, connected: dict[str, str], tmp_path: Path) -> None:
    assert drifts(cli, connected) == (0, set(), {})
    mlflow.register("pricing", 1)
    mlflow.alias("churn", "champion", None)
    changed = tmp_path / "lake"
    shutil.copytree(lake, changed)
    for file in changed.glob("inference_log/*/*.parquet"):
        pd.read_parquet(file).rename(columns={"predicted_probability": "p"}).to_parquet(file)
    try:
        code, found, problems = drifts(cli, connected | {"MLRUNBOOK_CONNECTION_PREDICTIONS": f"duckdb://{changed}"})
    finally:
        mlflow.alias("churn", "champion", 2)
    assert (code, problems) == (1, {})
    column = "predictions.columns.score"
    assert found == {("pricing", "models"), ("churn", "registry.serving_alias"), ("churn", column), ("fraud_detection", column)}


def test_a_connection_without_an_address_or_an_answer_is_said(cli: Cli, connected: dict[str, str], dead_port: int) -> None:
    code, found, problems = drifts(cli, {"MLRUNBOOK_CONNECTION_MLFLOW": f"http://127.0.0.1:{dead_port}"})
    assert (code, found, set(problems)) == (1, set(), {"mlflow", "predictions"})
    assert "MLRUNBOOK_CONNECTION_PREDICTIONS is not set" in problems["predictions"]


def test_a_warehouse_alone_names_its_models_and_nothing_else(cli: Cli, lake: Path, tmp_path: Path) -> None:
    file = tmp_path / "home" / "runbook.yaml"
    said = connect(cli, *log_flags(lake), "--write", file)
    assert said.exit_code == 0, said.output
    policy = load(file)
    assert set(policy.models) == {"churn", "fraud_detection"}
    assert set(policy.connections) == {"predictions"}
    parts = policy.models["churn"].platform
    assert parts is not None
    assert (parts.registry, parts.serving) == (None, Serving.NONE)


def test_only_what_is_asked_for_is_shown_and_nothing_is_written(cli: Cli, mlflow: MlflowKit, tmp_path: Path) -> None:
    said = connect(cli, "--mlflow", mlflow.url, "--model", "churn", "--dry-run")
    assert said.exit_code == 0
    assert "  churn:\n" in said.output
    assert "fraud_detection" not in said.output
    assert not list((tmp_path / "home").iterdir())


def test_a_password_is_neither_shown_nor_written(cli: Cli, mlflow: MlflowKit, dead_port: int, tmp_path: Path) -> None:
    file, secret = tmp_path / "home" / "runbook.yaml", "hush-hush-word"
    address = mlflow.url.replace("http://", f"http://reader:{secret}@")
    said = connect(cli, "--mlflow", address, "--write", file)
    assert said.exit_code == 0, said.output
    assert secret not in said.output + file.read_text()
    assert mlflow.url not in file.read_text(), "an address is no policy"
    assert "MLRUNBOOK_CONNECTION_MLFLOW=" in said.output
    lost = connect(cli, "--predictions", f"postgresql://reader:{secret}@127.0.0.1:{dead_port}/lake", "--write", file)
    assert lost.exit_code == 1
    assert secret not in lost.output + str(lost.exception or "")


def test_an_unknown_model_is_named_with_those_there_are(cli: Cli, mlflow: MlflowKit) -> None:
    said = connect(cli, "--mlflow", mlflow.url, "--model", "chrun")
    assert (said.exit_code, "churn" in said.output) == (1, True)
