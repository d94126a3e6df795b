"""From a drop in the platform's rows to an incident in the store and back, through the real Prometheus and Alertmanager."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from mlrunbook.adapters.reports import prometheus_rules
from mlrunbook.base import json_file, tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.incident import Incident, IncidentType
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app as gateway_app
from mlrunbook.local.platform.api import create_app as platform_app
from mlrunbook.store import alerts, incidents, timeline
from tests.gateway.conftest import world_on
from tests.local.platform import kit
from tests.prometheus.alertmanager import readable
from tests.prometheus.test_rules import DEPLOYMENTS
from tests.waiting import until

pytestmark = [
    pytest.mark.prometheus,
    pytest.mark.skipif(
        shutil.which("prometheus-alertmanager") is None and "CI" not in os.environ,
        reason="no Alertmanager: apt-get install prometheus prometheus-alertmanager",
    ),
]
PATIENCE_S = 30.0


def now() -> datetime:
    return datetime.now(UTC)


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def process(folder: Path, *command: str | Path) -> Iterator[None]:
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        running = subprocess.Popen([*map(str, command)], stdout=log, stderr=log, cwd=folder)
        try:
            yield
        finally:
            running.terminate()
            running.wait(timeout=120)


def configure(folder: Path, *, platform: int, gateway: int, prometheus_port: int, alertmanager: int, token: str) -> None:
    """The files of deployments/prometheus with these ports, and everything every second."""

    def adapted(name: str, text: str, **changes: str) -> None:
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (folder / name).write_text(text)

    adapted(
        "prometheus.yml",
        (DEPLOYMENTS / "prometheus.yml").read_text(),
        **{": 15s": ": 1s", ":8070": f":{platform}", ":8080": f":{prometheus_port}", ":9093": f":{alertmanager}"},
    )
    adapted(
        "alertmanager.yml",
        readable(DEPLOYMENTS / "alertmanager.yml"),
        **{"group_wait: 5s": "group_wait: 1s", "interval: 30s": "interval: 1s", ":8090": f":{gateway}"},
    )
    quick = Policy().model_copy(update={"alerts": Policy().alerts.model_copy(update={"clears_after_s": 1})})
    (folder / "rules.yml").write_text(prometheus_rules.as_yaml(quick).replace("interval: 15s", "interval: 1s"))
    (folder / "mlrunbook.token").write_text(token)


def test_a_metric_drop_becomes_an_incident_and_its_end_is_noted(engine: Engine, tmp_path: Path) -> None:
    model = kit.new_model()
    kit.release(engine, tmp_path / "models", model, "v1.5.0", "v2.0.0")
    kit.log(engine, model, tp=80, fp=20, fn=20, tn=880, at=now() - timedelta(days=2))
    kit.log(engine, model, tp=80, fp=20, fn=20, tn=880, at=now() - timedelta(minutes=20), version="v2.0.0")
    config = kit.settings_for(tmp_path, engine)
    json_file.patch(config.serving_state_file, {"model": model, "replicas": 0})  # this test has no model server
    with transaction(engine) as conn:
        token = tokens.create(conn, name="alertmanager", scopes=(Scope.ALERTS,))
        (tmp_path / "reader.token").write_text(tokens.create(conn, name="prometheus", scopes=(Scope.READ,)))

    with ExitStack() as parts:
        platform = parts.enter_context(kit.running(platform_app(config, engine, evaluate_every_s=None), kit.bearer(engine, Scope.READ)))
        gateway = parts.enter_context(kit.running(gateway_app(world_on(engine, now)), {}))
        prometheus_port, alertmanager = free_ports(2)
        ports = {"platform": platform.base_url.port, "gateway": gateway.base_url.port}
        configure(tmp_path, **ports, prometheus_port=prometheus_port, alertmanager=alertmanager, token=token)
        parts.enter_context(
            process(
                tmp_path,
                "prometheus-alertmanager",
                "--config.file=alertmanager.yml",
                f"--storage.path={tmp_path / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{alertmanager}",
                "--cluster.listen-address=",
            )
        )
        parts.enter_context(
            process(
                tmp_path,
                "prometheus",
                "--config.file=prometheus.yml",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{prometheus_port}",
            )
        )
        http = parts.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{prometheus_port}", trust_env=False))

        until(lambda: value(http, f'model:f1_drop:ratio{{model="{model}"}}') == 0, PATIENCE_S)
        assert found(engine, model) == []

        kit.log(engine, model, tp=40, fp=460, fn=460, tn=40, at=now() - timedelta(seconds=30), version="v2.0.0")
        until(lambda: "ModelF1Drop" in told(engine, model, "firing"), PATIENCE_S)
        (incident,) = found(engine, model)
        assert (incident.type, incident.reported_by) == (IncidentType.PERFORMANCE_DEGRADATION, "alertmanager")
        assert (incident.model_version, incident.description.split(" ")[:3]) == ("v2.0.0", [model, "F1", "fell"])

        kit.log(engine, model, tp=80, fp=20, fn=20, tn=880, at=now(), version="v1.5.0")  # the version before predicts again
        until(lambda: "ModelF1Drop" in told(engine, model, "resolved"), PATIENCE_S)
        with transaction(engine) as conn:
            assert any(e.text.startswith(f"Alert resolved: {model} F1 fell") for e in timeline.read(conn, incident.id))
        assert [i.id for i in found(engine, model)] == [incident.id]


def value(http: httpx.Client, query: str) -> float | None:
    try:
        result: list[dict[str, Any]] = http.get("/api/v1/query", params={"query": query}).json()["data"]["result"]
    except (httpx.HTTPError, ValueError, KeyError):
        return None
    return float(result[0]["value"][1]) if result else None


def found(engine: Engine, model: str) -> list[Incident]:
    with transaction(engine) as conn:
        return incidents.find(conn, model=model)


def told(engine: Engine, model: str, status: str) -> set[str]:
    """The names of the alerts that the gateway heard of with this status last."""
    with transaction(engine) as conn:
        rows = [row for incident in incidents.find(conn, model=model) for row in alerts.of_incident(conn, incident.id)]
    return {row["body"]["labels"]["alertname"] for row in rows if row["status"] == status}
