"""Backup and restore as docs/how-to/operate.md prints them: what a stack knew, another one started on a new folder knows too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy import delete
from sqlalchemy.engine import make_url

from mlrunbook.base import tokens
from mlrunbook.base.tokens import Scope
from mlrunbook.drills.simulator.fleet import Fleet
from mlrunbook.drills.simulator.traffic import MODEL
from mlrunbook.local.addresses import Ports, running_env
from mlrunbook.local.features import lake
from mlrunbook.local.features.repository import readings_folder, write_config
from mlrunbook.local.platform.tables import feature_schedules
from tests.docs.pages import ROOT, Page
from tests.docs.test_commands_on_a_stack import SIGN_IN, Shell
from tests.flows.live import wait_for

if TYPE_CHECKING:
    from tests.flows.live import ChildStack, Live

pytestmark = [pytest.mark.stack, pytest.mark.prefect]

PAGE = Page(ROOT / "docs/how-to/operate.md")
ASSETS = ["restored_1", "restored_2"]


@dataclass(frozen=True)
class Past:
    """What the backed-up stack knows."""

    incident_id: str
    entries: int
    token: str
    served: dict[str, Any]
    config: bytes


@pytest.fixture
def past(live: Live) -> Iterator[Past]:
    """An open incident, a person's token, readings that were materialised, a model that serves."""
    incident_id = live.report(severity="medium", type="compliance", description="an audit asks who approved v1.5.0")
    live.wait(incident_id, "on-call is paged", lambda: any(e.kind == "page" for e in live.entries(incident_id)))
    with live.store() as conn:
        token = tokens.create(conn, name="a person", scopes=[Scope.READ], role="ml_team_lead")
    land_and_materialise(live)
    config = (live.stack.data / "serving/model-config.json").read_bytes()
    yield Past(incident_id, len(live.entries(incident_id)), token, live.loaded(), config)
    live.gateway.post(
        f"/api/v1/incidents/{incident_id}/close",
        json={"reason": "answered"},
        headers={"Authorization": f"Bearer {live.stack.token('operator')}"},
    )
    with live.store() as conn:
        conn.execute(delete(feature_schedules))


def land_and_materialise(live: Live) -> None:
    """As the feature server's process does, which this stack runs without."""
    from mlrunbook.local.features.feature_service import Schedules, prepared

    repo = live.stack.data / "features"
    store_url = make_url(running_env(live.stack.data)["MLRUNBOOK_DATABASE_URL"])
    write_config(repo, database_url=store_url.set(database="feast").render_as_string(hide_password=False))
    lake.land(readings_folder(repo), Fleet(1).readings(2).assign(asset_id=ASSETS))
    Schedules(prepared(repo), repo, live.engine).round(datetime.now(UTC))


@pytest.fixture
def shell(stack: ChildStack, scratch: Path) -> Shell:
    folder = scratch / "operator"
    (folder / ".local/share").mkdir(parents=True)
    (folder / ".local/share/mlrunbook").symlink_to(stack.data)
    (folder / ".venv").symlink_to(sys.prefix)
    return Shell(folder)


@pytest.fixture
def up(shell: Shell) -> Iterator[Any]:
    """Types `mlrunbook up ...` on free ports, beside the stack that is still running here; returns when it is ready."""
    running: list[subprocess.Popen[bytes]] = []

    def start(command: str) -> Ports:
        ports = Ports.free()
        given = f"--gateway-port {ports.gateway} --platform-port {ports.platform} --model-port {ports.model_server} "
        given += f"--prefect-port {ports.prefect} --feature-server-port {ports.feature_server}"
        log = shell.folder / "up.log"
        env = {"HOME": str(shell.folder), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        with open(log, "wb") as out:
            argv = ["bash", "-euc", f"{SIGN_IN}exec {command} {given}"]
            running.append(subprocess.Popen(argv, cwd=shell.folder, env=env, stdout=out, stderr=out, start_new_session=True))

        def ready() -> bool:
            assert running[0].poll() is None, log.read_text()
            return "\nready in " in log.read_text()

        wait_for("the restored stack is ready", ready)
        return ports

    yield start
    for process in running:
        process.terminate()
        process.wait(120)


@pytest.mark.timeout(600)
def test_a_restored_stack_has_the_incident_the_tokens_the_model_and_the_features(live: Live, past: Past, shell: Shell, up: Any) -> None:
    (backup,) = PAGE.commands_of("Backup")
    assert "read back and whole" in shell.type(backup)

    restore, start, *check = PAGE.commands_of("Restore")
    assert "On-call is paged" in shell.type(restore)
    restored = shell.folder / "mlrunbook-restored"
    ports = up(start)

    shell.names["incident_1"] = past.incident_id
    *look, doctor = check
    sign_in = look[0]
    said = shell.type("\n".join(look))
    assert "intact: " in said
    assert past.incident_id in said
    assert "a person" in said

    # The log of all flow tests has a million predictions: on a busy machine the platform counts them for longer than people would wait.
    finds_nothing_wrong(shell, f"{sign_in}\nexport MLRUNBOOK_HTTP_TIMEOUT_S=60\n{doctor}")

    gateway = httpx.Client(base_url=f"http://127.0.0.1:{ports.gateway}", trust_env=False, timeout=60)
    read = gateway.get(f"/api/v1/incidents/{past.incident_id}/timeline", headers={"Authorization": f"Bearer {past.token}"})
    kinds = [entry["kind"] for entry in read.raise_for_status().json()["entries"]]
    assert kinds[: past.entries].count("page") >= 1
    assert "restored" in kinds[past.entries :]

    sign = {"Authorization": f"Bearer {past.token}"}
    server = httpx.Client(base_url=f"http://127.0.0.1:{ports.model_server}", headers=sign, trust_env=False, timeout=60)
    wait_for("the model serves", lambda: server.get("/health").json()["version"] == past.served["version"])
    assert (restored / "serving/model-config.json").read_bytes() == past.config

    features = httpx.Client(base_url=f"http://127.0.0.1:{ports.feature_server}", trust_env=False, timeout=60)
    wait_for("the features are there", lambda: are_online(features, ASSETS))
    lake.land(readings_folder(restored / "features"), Fleet(2).readings(1).assign(asset_id=["landed_after"]))
    wait_for("what lands in the new folder is materialised", lambda: are_online(features, ["landed_after"]))
    body = {"assets": [{"assetId": asset} for asset in (*ASSETS, "landed_after")]}
    headers = {"Authorization": f"Bearer {live.stack.token('simulator')}"}
    predicted = server.post(f"/api/v1/ml/models/{MODEL}/predict", json=body, headers=headers).raise_for_status().json()
    assert len(predicted["predictions"]) == 3


def finds_nothing_wrong(shell: Shell, command: str) -> None:
    """Not at once: two stacks share this machine, and a part that has just started may take longer than the doctor waits."""
    said = ""

    def is_well() -> bool:
        nonlocal said
        try:
            said = shell.type(command)
        except AssertionError as failed:
            said = str(failed)
        return " 0 fail" in said

    try:
        wait_for("the doctor finds nothing wrong", is_well)
    except AssertionError as late:
        raise AssertionError(f"{late}; it says:\n{said}") from late


def are_online(features: httpx.Client, assets: list[str]) -> bool:
    answer = features.post("/get-online-features", json={"feature_service": "asset_features", "entities": {"asset_id": assets}})
    return all(row["statuses"] == ["PRESENT"] * len(assets) for row in answer.raise_for_status().json()["results"])
