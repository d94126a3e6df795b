"""The embedded stack: ready or a clear refusal, and in every case no process, port or temporary folder left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from dataclasses import astuple, replace
from pathlib import Path

import httpx
import psutil
import pytest

from mlrunbook.adapters.local.serving_state import desired_state
from mlrunbook.base import db, json_file, tokens
from mlrunbook.base.processes import MARK, marked
from mlrunbook.base.settings import Settings
from mlrunbook.domain.errors import Invalid, Refused
from mlrunbook.drills.simulator.fleet import Fleet
from mlrunbook.local.addresses import Ports, check_ports, running_env
from mlrunbook.local.features import lake
from mlrunbook.local.stack import ALL_PARTS, Stack, stop_on_signals
from tests.waiting import until

PARTS = frozenset({"model-server"})
SECRETS = ("postgres-password", "platform.token", "gateway-intake.token", "simulator.token", "operator.token", "chain-key")


def make(data: Path, **options: object) -> Stack:
    return Stack(data, **{"ports": Ports.free(), "parts": PARTS, "durable": False, "report": lambda line: None} | options)  # type: ignore[arg-type]


def leftovers(data: Path, ports: Ports) -> list[str]:
    """Processes that name the folder or carry its mark, ports that are taken, socket folders that it noted."""
    left = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            about_us = str(data) in " ".join(process.info["cmdline"] or []) or process.environ().get("MLRUNBOOK_DATA_DIR") == str(data)
            if about_us and MARK in process.environ() and process.status() != psutil.STATUS_ZOMBIE:
                left.append(str(process))
        except psutil.Error:
            continue
    for port in astuple(ports):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                left.append(f"port {port}")
    if (data / "run" / "postgres-socket").exists():
        left.append((data / "run" / "postgres-socket").read_text())
    left += [name for name in ("env", "run/stack.json", "postgres/postmaster.pid") if (data / name).exists()]
    return left


def child(data: Path, ports: Ports, parts: frozenset[str] = PARTS) -> subprocess.Popen[str]:
    """A supervisor in a process of its own, as `mlrunbook up` is one; it prints what it reports."""
    script = f"""
from pathlib import Path
from mlrunbook.local.addresses import Ports
from mlrunbook.local.stack import Stack, stop_on_signals
try:
    told = lambda line: print(line, flush=True)
    with stop_on_signals(), Stack(Path({str(data)!r}), ports={ports!r}, parts={set(parts)!r}, durable=False, report=told) as stack:
        stack.wait()
except KeyboardInterrupt:
    print("stopped")
"""
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def read_until(process: subprocess.Popen[str], beginning: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(f"ended before it said {beginning!r}")


def test_an_older_data_folder_learns_which_model_the_machine_serves_and_keeps_it(scratch: Path) -> None:
    """Before anything is released too: a restart of `up` serves the same model, and the noted one is the one that is started."""
    data, ports = scratch / "upgraded", Ports.free()
    state = Settings(data_dir=data).serving_state_file
    json_file.patch(state, {"replicas": 1, "route_version": None, "restart_id": None})

    def serves() -> str:
        sign = {"Authorization": f"Bearer {(data / 'secrets' / 'platform.token').read_text().strip()}"}
        return str(httpx.get(f"http://127.0.0.1:{ports.model_server}/health", headers=sign).json()["model"])

    with make(data, ports=ports):
        assert (desired_state(state)["model"], serves()) == ("predictive_maintenance", "predictive_maintenance")
        state.unlink()
        until(lambda: desired_state(state)["model"] == "predictive_maintenance")
    json_file.patch(state, {"model": "churn"})
    with make(data, ports=ports):
        assert (desired_state(state)["model"], serves()) == ("churn", "churn")


def test_a_taken_port_is_named_with_its_holder_and_nothing_is_started(scratch: Path) -> None:
    data, ports = scratch / "taken", Ports.free()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports.model_server))
        taken.listen()
        with pytest.raises(Invalid, match=rf"port {ports.model_server} \(model-server\) is taken by pid \d+ .*--model-server-port"):
            make(data, ports=ports).start()
    assert not (data / "postgres").exists()
    assert leftovers(data, ports) == []


def test_one_port_for_two_parts_is_refused() -> None:
    ports = Ports.free()
    with pytest.raises(Invalid, match="both platform and gateway"):
        check_ports(replace(ports, gateway=ports.platform), frozenset({"platform", "gateway"}))


def test_a_checkout_without_prefect_yaml_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"no prefect.yaml in .*MLRUNBOOK_HOME"):
        make(tmp_path / "data", home=tmp_path, parts=frozenset({"deployments"})).start()
    assert not (tmp_path / "data").exists()


def test_secrets_are_private_valid_kept_over_a_restart_and_on_no_command_line(scratch: Path) -> None:
    data, ports = scratch / "secrets", Ports.free()
    with make(data, ports=ports) as stack:
        assert all(stat.S_IMODE((data / "secrets" / name).stat().st_mode) == 0o600 for name in SECRETS)
        assert stat.S_IMODE((data / "env").stat().st_mode) == 0o600
        assert running_env(data) == stack.env()
        assert stack.chain_key not in str(stack.env()), "runs write the chains: what signs them is the gateway's alone"
        assert not (data / "secrets" / "approver.token").exists()
        engine = db.engine(stack.database_url)
        with engine.begin() as conn:
            who = tokens.verify(conn, stack.token("operator"))
        engine.dispose()
        assert who is not None
        assert who.scopes == {"read", "operate", "report", "alerts"}
        shown = " ".join(part for process in psutil.process_iter(["cmdline"]) for part in process.info["cmdline"] or [])
        assert not [name for name in SECRETS if (data / "secrets" / name).read_text().strip() in shown]
        with pytest.raises(Invalid, match="a stack already runs on"):
            make(data).start()
        assert httpx.get(f"http://127.0.0.1:{ports.model_server}/health").is_success
        kept = stack.token("operator")
    assert leftovers(data, ports) == []
    assert running_env(data) == {}
    with make(data, parts=frozenset()) as again:
        assert again.token("operator") == kept


def test_a_part_that_fails_stops_everything_and_shows_the_end_of_its_log(scratch: Path) -> None:
    data, ports = scratch / "failing", Ports.free()
    (data / "serving").mkdir(parents=True)
    (data / "serving" / "model-config.json").write_text("not json")
    with pytest.raises(Refused, match=r"model-server does not start(?s:.)*is not valid JSON"):
        make(data, ports=ports).start()
    assert leftovers(data, ports) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_in_the_middle_of_the_start_leaves_nothing(scratch: Path, number: signal.Signals) -> None:
    data, ports = scratch / f"interrupted-{number.name}", Ports.free()
    process = child(data, ports)
    read_until(process, "schema and tokens")
    process.send_signal(number)
    said, _ = process.communicate(timeout=120)
    assert said.endswith("stopped\n")
    assert "ready in" not in said
    assert leftovers(data, ports) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_ctrl_c_that_falls_into_a_destructor_still_ends_the_wait(scratch: Path, number: signal.Signals) -> None:
    class Collected:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            sum(range(1000))  # the handler runs in here, and what it raises goes no further

    with stop_on_signals():
        Collected()
        with pytest.raises(KeyboardInterrupt):
            make(scratch / "data").wait()


def test_after_kill_9_of_the_supervisor_the_next_start_finds_and_ends_what_is_left(scratch: Path) -> None:
    data, ports = scratch / "killed", Ports.free()
    process = child(data, ports, PARTS | {"feature-server"})
    read_until(process, "ready")
    process.kill()
    process.communicate()
    with make(data, ports=ports) as stack:
        assert httpx.get(f"http://127.0.0.1:{ports.model_server}/health").is_success
        assert len([one for one in marked("") if one.environ().get("MLRUNBOOK_DATA_DIR") == str(data)]) == 1
        stack_id = stack.supervisor.stack_id
    assert marked(stack_id) == []
    assert leftovers(data, ports) == []


@pytest.mark.parametrize(
    ("name", "value", "repo"),
    [
        ("MLRUNBOOK_DATABASE_URL", "postgresql://db.example.com/mlrunbook", ""),
        ("MLRUNBOOK_PLATFORM_URL", "https://platform.example.com", ""),
        ("MLRUNBOOK_FEATURE_REPO", "/srv/features", "/srv/features"),
    ],
)
def test_a_part_of_yours_replaces_the_feature_store_in_the_box(
    name: str, value: str, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    told: list[str] = []
    stack = make(tmp_path, parts=ALL_PARTS, report=told.append)
    assert stack.lake is None
    assert [line for line in told if "MLRUNBOOK_FEATURE_REPO" in line] == ([] if repo else told)
    (tmp_path / "secrets").mkdir()
    for token in ("platform", "operator"):
        (tmp_path / "secrets" / f"{token}.token").write_text("secret")
    monkeypatch.setattr(Stack, "database_url", "postgresql://unused")
    assert (stack.env()["MLRUNBOOK_FEATURE_REPO"], stack.env()["MLRUNBOOK_FEATURE_SERVER_URL"]) == (repo, "")


def test_a_killed_postgresql_is_started_again_at_the_same_address(scratch: Path) -> None:
    with make(scratch / "revived", parts=frozenset()) as stack:
        url, pid_file = stack.database_url, stack.data / "postgres" / "postmaster.pid"
        first = pid_file.read_text().splitlines()[0]
        psutil.Process(int(first)).kill()
        until(lambda: pid_file.exists() and pid_file.read_text().splitlines()[0] != first and pid_file.read_text().count("ready") == 1)
        assert stack.database_url == url


@pytest.mark.stack
@pytest.mark.prefect
def test_the_whole_stack_answers_and_the_prefect_server_wants_its_password(stack: Stack) -> None:
    for port in (stack.ports.platform, stack.ports.model_server, stack.ports.gateway):
        assert httpx.get(f"http://127.0.0.1:{port}/health").is_success
    user, _, password = (stack.prefect_auth or "").partition(":")
    filters = f"{stack.prefect_api_url}/deployments/filter"
    assert httpx.post(filters, json={}).status_code == 401
    deployed = httpx.post(filters, json={}, auth=(user, password)).json()
    assert {"respond", "rollback", "threshold"} <= {one["name"] for one in deployed}
    foreign = {"Origin": "http://evil.example.com", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in httpx.options(filters, headers=foreign).headers
    own = foreign | {"Origin": f"http://localhost:{stack.ports.prefect}"}
    assert httpx.options(filters, headers=own).headers["access-control-allow-origin"] == own["Origin"]
    assert httpx.get(f"http://127.0.0.1:{stack.ports.prefect}/").is_success


@pytest.mark.stack
def test_on_a_stack_that_has_just_started_the_doctor_finds_nothing_that_fails(stack: Stack) -> None:
    """No model, no pager, nobody with a token to approve: worth a warning each."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLRUNBOOK_", "PREFECT_"))} | stack.env()
    done = subprocess.run(
        [sys.executable, "-m", "mlrunbook.cli", "doctor", "--model", "of_nobody", "--json"],
        env=env,
        cwd=stack.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert [f"{one['name']}: {one['said']}" if "said" in one else one for one in found.values() if one["level"] == "fail"] == []
    assert done.returncode == 0
    assert {"runtime", "worker", "deployments", "schema", "gateway"} <= {name for name, one in found.items() if one["level"] == "ok"}
    assert not [secret for secret in (stack.token("platform"), stack.token("operator"), stack.prefect_auth or "") if secret in done.stdout]


def test_the_feature_store_of_the_stack_serves_what_has_landed_and_its_password_is_private(scratch: Path) -> None:
    with make(scratch / "features", parts=frozenset({"platform", "feature-server"})) as stack:
        serves_what_lands(stack)


def serves_what_lands(stack: Stack) -> None:
    env = running_env(stack.data)
    repo, assets = Path(env["MLRUNBOOK_FEATURE_REPO"]), ["landed_1", "landed_2"]
    assert stat.S_IMODE((repo / "feature_store.yaml").stat().st_mode) == 0o600
    assert stack.lake is not None
    lake.land(stack.lake, Fleet(1).readings(2).assign(asset_id=assets))
    url = f"http://127.0.0.1:{stack.ports.feature_server}/get-online-features"

    def served() -> bool:
        try:
            answer = httpx.post(url, json={"feature_service": "asset_features", "entities": {"asset_id": assets}}).json()
        except httpx.TransportError:  # nobody waits for it to start
            return False
        return all(row["statuses"] == ["PRESENT"] * 2 for row in answer["results"])

    until(served)
