"""The files to paste at a sender: they parse, point at doors that exist, and sign as the gateway checks."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from mlrunbook.cli.webhook import FormatName
from mlrunbook.domain.policy.intake import IntakePolicy
from mlrunbook.gateway import webhooks
from mlrunbook.gateway.api.changes_and_quarantine import ChangeIn
from mlrunbook.gateway.webhooks import mail, pagerduty, pagerduty_door, pagerduty_events
from mlrunbook.gateway.webhooks.parsing import Format, Received
from mlrunbook.gateway.webhooks.registry import FORMATS
from mlrunbook.gateway.webhooks.signatures import OF_FORMAT, TOKEN_HEADER, Signed, proofs_of, prove

ROOT = Path(__file__).resolve().parents[2]
RECEIVERS = ROOT / "deployments/receivers"
PAYLOADS = ROOT / "tests/gateway/payloads"
OTHERS = ("alertmanager-watchdog", "pagerduty-events", "change", "jira-service-management", "mappings", "newrelic", "postfix-transport")


def test_every_format_has_a_file_a_proof_and_a_name_on_the_command_line() -> None:
    assert {path.stem for path in RECEIVERS.iterdir()} == {*FORMATS, *OTHERS}
    assert set(OF_FORMAT) == set(FORMATS) == {str(name) for name in FormatName}
    for name in FORMATS:
        (file,) = RECEIVERS.glob(f"{name}.*")
        assert f"/webhooks/{name}" in file.read_text()


def test_every_file_that_reads_a_format_is_registered() -> None:
    files = [importlib.import_module(f"{webhooks.__name__}.{found.name}") for found in pkgutil.iter_modules(webhooks.__path__)]
    read = {file.FORMAT.name for file in files if isinstance(getattr(file, "FORMAT", None), Format)}
    assert read - {mail.FORMAT.name} == set(FORMATS)


def test_the_yaml_files_parse_and_name_the_headers_that_are_checked() -> None:
    (point,) = yaml.safe_load((RECEIVERS / "grafana.yaml").read_text())["contactPoints"]
    signed = point["receivers"][0]["settings"]["hmacConfig"]
    assert signed["header"].lower() in OF_FORMAT["grafana"]
    assert signed["timestampHeader"] == "X-Grafana-Alerting-Timestamp"
    ours = yaml.safe_load((RECEIVERS / "alertmanager.yml").read_text())["receivers"][0]["webhook_configs"]
    whole = yaml.safe_load((ROOT / "deployments/prometheus/alertmanager.yml").read_text())["receivers"]
    assert ours[0]["url"] == next(r for r in whole if r["name"] == "mlrunbook")["webhook_configs"][0]["url"]
    assert yaml.safe_load((RECEIVERS / "cloudevents.yaml").read_text())["kind"] == "Trigger"


def test_datadog_s_payload_has_the_fields_that_are_read() -> None:
    webhook = json.loads((RECEIVERS / "datadog.json").read_text())
    assert json.loads(webhook["payload"]) == json.loads((PAYLOADS / "datadog_webhook_template.json").read_text())
    assert [name.lower() for name in json.loads(webhook["custom_headers"])] == [TOKEN_HEADER]
    for sender in ("opsgenie", "jira-service-management"):
        assert [name.lower() for name in json.loads((RECEIVERS / f"{sender}.json").read_text())["headers"]] == [TOKEN_HEADER]


def test_pagerduty_is_asked_for_the_events_that_are_read() -> None:
    asked = json.loads((RECEIVERS / "pagerduty.json").read_text())["webhook_subscription"]["events"]
    assert set(asked) == {*pagerduty.OPENS, *pagerduty.RESOLVES, *pagerduty.UPDATES, pagerduty.FIELDS_COME, "incident.annotated"}


def test_the_registry_is_asked_for_events_that_are_changes() -> None:
    source = (RECEIVERS / "mlflow.py").read_text()
    compile(source, "mlflow.py", "exec")
    for event in ("model_version.created", "model_version_alias.created", "model_version_alias.deleted"):
        assert f'"{event}"' in source
        entity, action = event.split(".")
        message = {"entity": entity, "action": action, "data": {"name": "pump", "version": "3", "alias": "champion"}}
        (reading,) = FORMATS["mlflow"].read(Received(message, {}, datetime(2026, 3, 2, tzinfo=UTC), IntakePolicy()))
        assert len(reading.changes) == 1


@pytest.fixture
def door() -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """The URL of a server that keeps what it is sent."""
    kept: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", kept
    server.shutdown()
    server.server_close()


def run(script: str, *args: str, **env: str) -> None:
    found: dict[str, Any] = {"PATH": os.environ["PATH"]} | env
    subprocess.run([RECEIVERS / script, *args], env=found, check=True, timeout=120, capture_output=True)


def test_the_script_signs_as_the_gateway_checks(door: tuple[str, list[tuple[str, dict[str, str], bytes]]]) -> None:
    url, kept = door
    run("generic.sh", str(PAYLOADS / "generic_alert.json"), MLRUNBOOK_GATEWAY_URL=url, MLRUNBOOK_WEBHOOK_SECRET_GENERIC="gh-test-secret")
    ((path, headers, body),) = kept
    assert path == "/webhooks/generic"
    _, over_body = proofs_of("generic")
    assert prove(over_body, Signed(headers, body, ("gh-test-secret",), datetime.now(UTC), 300.0)) is None


def test_the_pipelines_step_tells_a_change_that_is_taken(door: tuple[str, list[tuple[str, dict[str, str], bytes]]]) -> None:
    url, kept = door
    run("change.sh", "pump", "data_pipeline", "etl-7", "the pipeline", MLRUNBOOK_GATEWAY_URL=url, MLRUNBOOK_GATEWAY_TOKEN="mlrb_x")
    ((path, headers, body),) = kept
    assert (path, headers["authorization"]) == ("/api/v1/changes", "Bearer mlrb_x")
    change = ChangeIn.model_validate_json(body)
    assert (change.kind, change.ref) == ("data_pipeline", "etl-7")


def test_the_receiver_that_pages_leads_to_the_door_of_events_and_is_read() -> None:
    (hook,) = yaml.safe_load((RECEIVERS / "pagerduty-events.yml").read_text())["receivers"][0]["pagerduty_configs"]
    assert urlsplit(hook["url"]).path == pagerduty_door.PATH
    details = {name: f"of {name}" for name in hook["details"]}
    sent = {"event_action": "trigger", "payload": {"summary": "x", "source": "y", "severity": "error", "custom_details": details}}
    assert pagerduty_events.faults(sent) == []
    [reading] = FORMATS["pagerduty"].read(Received(sent, {}, datetime.now(UTC), IntakePolicy()))
    assert reading.alerts[0].said["model"] == "of model"
