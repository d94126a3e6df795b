"""Whoever has Prefect's login decides which of our flows run, and nothing else: no command, code, variable or folder of theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlrunbook.adapters.prefect.deployments import POOL, ensure_pool
from mlrunbook.adapters.prefect.flow_process import refusal
from mlrunbook.base import run_environment
from mlrunbook.base.settings import Settings
from tests.adapters.prefect.checkout import Checkout
from tests.flows.live import wait_for

SECRETS = {
    "MLRUNBOOK_CHANNEL_PAGE": "pagerduty-events://key",
    "MLRUNBOOK_WEBHOOK_SECRET_GRAFANA": "s3cret",
    "MLRUNBOOK_GATEWAY_TOKEN": "mlrb_token",
    "MLRUNBOOK_HEARTBEAT_URL": "https://example.com/ping",
    "PREFECT_SERVER_API_AUTH_STRING": "mlrunbook:auth",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://prefect@db.example.com/prefect",
    "PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://prefect@db.example.com/prefect",
    "AWS_SECRET_ACCESS_KEY": "key",
    "SOMEBODYS_PASSWORD": "hunter2",
}
NEEDED = {
    "MLRUNBOOK_DATABASE_URL": "postgresql://nowhere",
    "MLRUNBOOK_PLATFORM_TOKEN": "mlrb_platform",
    "FEAST_S3_ENDPOINT_URL": "http://s3",
    "MLRUNBOOK_RUN_ENV": "FEAST_S3_ENDPOINT_URL, ABSENT",
}
OURS = {"respond": "flows.incident.respond"}


@pytest.fixture(scope="module")
def working(ours: Checkout) -> Iterator[Checkout]:
    with ours.worker(SECRETS | NEEDED):
        yield ours


def _touches(ours: Checkout, name: str) -> str:
    return f"touch {ours.home}/began/{name}"


def _job_variables(ours: Checkout, name: str) -> str | None:
    """Of a run; the pool's own template is out of the way, as its owner can put it."""
    free = {"type": "object", "properties": {key: {} for key in ("command", "env", "working_dir")}}
    template = {"job_configuration": {key: "{{ " + key + " }}" for key in ("command", "env", "working_dir")}, "variables": free}
    ours.login.patch(f"/work_pools/{POOL}", json={"base_job_template": template}).raise_for_status()
    given = {"command": f"sh -c '{_touches(ours, name)}'", "env": {"LD_PRELOAD": "/evil.so"}, "working_dir": "/"}
    answer = ours.create(ours.deployment("hold")["id"], name, job_variables=given)
    return str(answer.raise_for_status().json()["id"])


def _variables_of_the_deployment(ours: Checkout, name: str) -> str | None:
    _job_variables(ours, f"{name}-0")
    given = {"command": f"sh -c '{_touches(ours, name)}'"}
    ours.login.patch(f"/deployments/{ours.deployment('hold')['id']}", json={"job_variables": given}).raise_for_status()
    return str(ours.create(ours.deployment("hold")["id"], name).raise_for_status().json()["id"])


def _pull_steps(ours: Checkout, name: str) -> str | None:
    steps = [{"prefect.deployments.steps.run_shell_script": {"script": _touches(ours, name)}}]
    ours.login.patch(f"/deployments/{ours.deployment('hold')['id']}", json={"pull_steps": steps}).raise_for_status()
    return str(ours.create(ours.deployment("hold")["id"], name).raise_for_status().json()["id"])


def _entrypoint(entrypoint: str) -> Callable[[Checkout, str], str | None]:
    def change(ours: Checkout, name: str) -> str | None:
        (ours.home / "evil.py").write_text(f"import os\nos.system({_touches(ours, name)!r})\n")
        (ours.home / "flows" / "beside.py").write_text(f"import os\nos.system({_touches(ours, name)!r})\n")
        body = {"entrypoint": entrypoint, "path": str(ours.home)}
        ours.login.patch(f"/deployments/{ours.deployment('hold')['id']}", json=body).raise_for_status()
        return str(ours.create(ours.deployment("hold")["id"], name).raise_for_status().json()["id"])

    return change


def _new_deployment(ours: Checkout, name: str) -> str | None:
    steps = [{"prefect.deployments.steps.run_shell_script": {"script": _touches(ours, name)}}]
    flow = ours.login.post("/flows/", json={"name": "hold"}).raise_for_status().json()["id"]
    body: dict[str, Any] = {"name": f"theirs-{uuid.uuid4().hex[:6]}", "flow_id": flow, "entrypoint": "evil.py:hold", "work_pool_name": POOL}
    made = ours.login.post("/deployments/", json=body | {"pull_steps": steps, "path": str(ours.home)}).raise_for_status().json()["id"]
    return str(ours.create(made, name).raise_for_status().json()["id"])


@pytest.mark.prefect
@pytest.mark.parametrize(
    "door",
    [
        _job_variables,
        _variables_of_the_deployment,
        _pull_steps,
        _entrypoint("os.system"),
        _entrypoint("evil.hold"),
        _entrypoint("evil.py:hold"),
        _entrypoint("flows/held.py:hold"),
        _entrypoint("flows.beside.hold"),
        _entrypoint("flows.held.ask"),
        _new_deployment,
    ],
)
def test_what_is_not_our_flow_is_refused_and_nothing_of_it_runs(working: Checkout, door: Callable[[Checkout, str], str | None]) -> None:
    name = f"door-{uuid.uuid4().hex[:8]}"
    ours = working.deployment("hold")
    try:
        run_id = door(working, name)
        assert run_id is not None
        run = working.wait_until(run_id, "CRASHED")
        assert run["state"]["message"].startswith("Refused: ")
        assert name not in working.began
        logs = {"logs": {"flow_run_id": {"any_": [run_id]}}}
        wait_for("the log says why", lambda: "Refused: " in working.login.post("/logs/filter", json=logs).text)
    finally:
        ensure_pool(working.login, 4)
        before = {key: ours[key] for key in ("job_variables", "pull_steps", "entrypoint", "path")}
        working.login.patch(f"/deployments/{ours['id']}", json=before).raise_for_status()
        working.let_go(name)


@pytest.mark.prefect
def test_deploying_again_repairs_a_deployment_that_was_tampered_with(working: Checkout) -> None:
    _entrypoint("evil.hold")(working, "tampered")
    working.let_go("tampered")
    working.deploy()
    working.let_go("repaired")
    working.wait_until(working.start("hold", "repaired"), "COMPLETED")


@pytest.mark.prefect
def test_the_server_takes_no_job_variables_where_our_template_stands(working: Checkout) -> None:
    answer = working.create(working.deployment("hold")["id"], "variables", job_variables={"command": "sh -c id"})
    assert answer.status_code == 422


@pytest.mark.prefect
def test_an_edited_template_changes_nothing_for_our_runs(working: Checkout) -> None:
    touch = _touches(working, "by-template")
    evil = {"command": f"sh -c '{touch}'", "env": {"PYTHONSTARTUP": "/evil.py"}, "working_dir": "/"}
    template = {"job_configuration": evil, "variables": {"type": "object", "properties": {}}}
    working.login.patch(f"/work_pools/{POOL}", json={"base_job_template": template}).raise_for_status()
    try:
        working.let_go("as-ever")
        wait_for("the worker has the template", lambda: "sh -c" in working.login.get(f"/work_pools/{POOL}").text)
        working.wait_until(working.start("hold", "as-ever"), "COMPLETED")
        assert "as-ever" in working.began
        assert "by-template" not in working.began
    finally:
        ensure_pool(working.login, 4)


@pytest.mark.prefect
def test_a_run_gets_what_flows_need_and_no_other_secret(working: Checkout) -> None:
    working.wait_until(working.start("environment", "env"), "COMPLETED")
    names = set(json.loads((working.home / "began" / "env").read_text()))
    assert not names & SECRETS.keys()
    assert names >= {*NEEDED, "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT__FLOW_RUN_ID"}


def test_every_setting_is_either_for_runs_or_known_not_to_be() -> None:
    """A new setting is decided about: a run that lacks one would quietly use its default."""
    not_for_runs = {"gateway_token", "heartbeat_url", "heartbeat_every_s", "smtp_port", "smtp_host", "dispatch_every_s"}
    not_for_runs |= {"requests_per_min_token", "requests_per_min_address", "failed_logins_per_min_address", "chain_key", "sns_certificates"}
    not_for_runs |= {"oidc_issuer", "oidc_client_id", "oidc_client_secret"}
    ours = {name for name, field in Settings.model_fields.items() if not field.validation_alias}
    given = {name.removeprefix("MLRUNBOOK_").lower() for name in run_environment.SETTINGS | {run_environment.MORE}}
    assert ours - given == not_for_runs


@pytest.mark.parametrize(
    ("name", "entrypoint", "pull_steps", "job_variables", "refused"),
    [
        ("respond", "flows.incident.respond", None, None, False),
        ("respond", "flows.incident.respond", [], {}, False),
        ("a copy", "flows.incident.respond", [], {}, False),
        (None, None, None, None, True),
        ("respond", None, [], {}, True),
        ("respond", "flows/incident.py:respond", [], {}, True),
        ("respond", "flows.incident", [], {}, True),
        ("respond", "flows.incident.respond.os.system", [], {}, True),
        ("respond", "flows.incident.respond", [{"a.step": {}}], {}, True),
        ("respond", "flows.incident.respond", ["odd"], {}, True),
        ("respond", "flows.incident.respond", [], {"env": {}}, True),
    ],
)
def test_a_run_is_refused_that_asks_for_more_than_a_flow_of_ours(
    name: str | None, entrypoint: str | None, pull_steps: list[Any] | None, job_variables: dict[str, Any] | None, refused: bool
) -> None:
    why = refusal(name, entrypoint, pull_steps=pull_steps, job_variables=job_variables, ours=OURS)
    assert (why is not None) is refused


FORGED = """
import asyncio
from prefect.states import Completed
from prefect._internal.result_records import ResultRecordMetadata
from mlrunbook.adapters.prefect import flow_process

flow_process.read_no_stored_results()
forged = ResultRecordMetadata(storage_key="{folder}/evil", serializer=dict(type="pickle"), expiration=None, storage_block_id=None)
try:
    asyncio.run(Completed(data=forged).aresult(retry_result_failure=False))
except Exception as error:
    print(error)
"""


def test_a_result_that_a_forged_state_points_to_is_never_unpickled(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORGED.format(folder=tmp_path)],
        env={"PATH": os.environ["PATH"], "PREFECT_HOME": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "our flows store none" in done.stdout, done.stderr
