"""The local runtime against a real model server under a real supervisor: what is asked for becomes true and is read back."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from mlrunbook.adapters.local import serving_config
from mlrunbook.adapters.local.evidence import tail_of
from mlrunbook.adapters.local.runtime import LocalRuntime
from mlrunbook.adapters.local.serving_state import claim, desired_state
from mlrunbook.base import json_file
from mlrunbook.base.settings import Settings
from mlrunbook.domain.errors import Invalid, NotFound, Refused, Transient
from mlrunbook.domain.observed import ServingState
from mlrunbook.local.addresses import Ports
from mlrunbook.local.stack import Stack
from tests.adapters.runtime_contract import Case, RuntimeContract
from tests.waiting import until

MODEL = "predictive_maintenance"


@pytest.fixture(scope="module")
def small(scratch: Path) -> Iterator[Stack]:
    """PostgreSQL and the model server, no more; its config is there, a trained model is not."""
    data = scratch / "runtime"
    serving_config.ensure(Settings(data_dir=data).serving_config_file, threshold=0.5)
    with Stack(data, ports=Ports.free(), parts=frozenset({"model-server"}), durable=False, report=lambda line: None) as running:
        yield running


@pytest.fixture(scope="module")
def config(small: Stack) -> Settings:
    url = f"http://127.0.0.1:{small.ports.model_server}"
    return Settings(data_dir=small.data, model_server_url=url, platform_token=SecretStr(small.token("platform")))


@pytest.fixture(scope="module")
def runtime(config: Settings) -> LocalRuntime:
    return LocalRuntime(config)


class TestContract(RuntimeContract):
    @pytest.fixture
    def case(self, runtime: LocalRuntime, small: Stack, config: Settings) -> Case:
        pids: set[int | None] = set()
        with open(config.serving_log_file, "a") as log:  # a server without a model has nothing to say
            log.write("INFO a word of its own\n")

        def restarts() -> int:
            pids.add(small.supervisor.pid("model-server"))
            return len(pids)

        files = (config.serving_state_file, config.serving_config_file)
        return Case(runtime, MODEL, restarts, world=lambda: b"".join(f.read_bytes() for f in files))


def until_observed(runtime: LocalRuntime, wanted: Callable[[ServingState], bool]) -> None:
    """Wait for a state; a server that is caught while it stops or starts gives no usable answer, which tasks retry too."""

    def holds() -> bool:
        try:
            return wanted(runtime.observe(MODEL))
        except Transient:
            return False

    until(holds)


def test_zero_replicas_makes_the_port_refuse_connections_and_one_brings_it_back(runtime: LocalRuntime, small: Stack) -> None:
    runtime.scale(MODEL, replicas=0)
    until_observed(runtime, lambda state: state.config is None)
    state = runtime.observe(MODEL)
    assert (state.replicas, state.ready_replicas, state.version) == (0, 0, None)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", small.ports.model_server), timeout=1)
    runtime.scale(MODEL, replicas=1)
    until_observed(runtime, lambda state: state.config is not None)


def test_a_new_threshold_takes_effect_at_the_restart_and_is_read_back_from_the_running_server(runtime: LocalRuntime) -> None:
    stored = runtime.read_config(MODEL)
    written = runtime.write_config(MODEL, {"threshold": 0.7}, expected_revision=stored.revision)
    assert (written.threshold, written.revision) == (0.7, str(int(stored.revision) + 1))
    before = runtime.observe(MODEL)
    assert before.config is not None
    assert before.config.threshold == stored.threshold
    runtime.restart(MODEL, restart_id="restart-1")
    until_observed(runtime, lambda state: state.restart_id == "restart-1")
    assert runtime.observe(MODEL).config == written


def test_the_same_restart_asked_for_again_is_no_second_restart(runtime: LocalRuntime, small: Stack, config: Settings) -> None:
    runtime.restart(MODEL, restart_id="restart-2")
    until_observed(runtime, lambda state: state.restart_id == "restart-2")
    pid, revision = small.supervisor.pid("model-server"), config.serving_state_file.read_text()
    runtime.restart(MODEL, restart_id="restart-2")
    assert config.serving_state_file.read_text() == revision
    assert small.supervisor.pid("model-server") == pid


def test_a_crashed_server_is_back_with_the_same_restart_id(runtime: LocalRuntime, small: Stack) -> None:
    wanted = runtime.observe(MODEL).restart_id
    pid = small.supervisor.pid("model-server")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: small.supervisor.pid("model-server") not in (None, pid))
    until_observed(runtime, lambda state: state.config is not None)
    assert runtime.observe(MODEL).restart_id == wanted


def _written(log: Path, text: str, at: str) -> Path:
    log.write_text(text)
    written = datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()
    os.utime(log, (written, written))
    return log


RECORDS = "2026-03-02 11:00:00,120 ERROR old\nTraceback of the old one\n2026-03-02 12:00:00,900 ERROR new\nTraceback of the new one\n"


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ("2026-03-02T10:59:59", 4),
        ("2026-03-02T11:00:01", 2),
        ("2026-03-02T12:00:00.500", 2),
        ("2026-03-02T12:00:01", 0),
    ],
)
def test_a_record_is_read_whole_or_not_at_all_by_the_time_on_its_first_line(tmp_path: Path, since: str, expected: int) -> None:
    log = _written(tmp_path / "model-server.log", RECORDS, "2026-03-02T12:00:00.900")
    text = tail_of(log, 500, datetime.fromisoformat(since).replace(tzinfo=UTC))
    assert text.splitlines() == RECORDS.splitlines()[4 - expected :]


def test_the_words_of_a_crash_are_read_though_they_have_no_time_of_their_own(tmp_path: Path) -> None:
    log = _written(tmp_path / "model-server.log", "2026-03-02 11:00:00,120 INFO ready\nFatal Python error\n", "2026-03-02T12:00:00")
    assert tail_of(log, 500, datetime(2026, 3, 2, 11, 30, tzinfo=UTC)) == "Fatal Python error\n"
    assert tail_of(log, 500, datetime(2026, 3, 2, 12, 30, tzinfo=UTC)) == ""


def test_an_absent_log_says_so(tmp_path: Path) -> None:
    claim(Settings(data_dir=tmp_path).serving_state_file)
    with pytest.raises(NotFound, match="has written no log"):
        LocalRuntime(Settings(data_dir=tmp_path)).logs(MODEL)


def test_more_than_one_replica_is_refused_on_one_machine(runtime: LocalRuntime, config: Settings) -> None:
    with pytest.raises(Invalid, match="0 or 1"):
        runtime.scale(MODEL, replicas=2)
    assert desired_state(config.serving_state_file)["replicas"] == 1


def test_a_server_that_hangs_is_transient_not_absent(tmp_path: Path) -> None:
    with socket.socket() as hanging:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen()
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        claim(Settings(data_dir=tmp_path).serving_state_file)
        with pytest.raises(Transient, match="gives no usable answer"):
            LocalRuntime(Settings(data_dir=tmp_path, model_server_url=url, http_timeout_s=0.2)).observe(MODEL)


def test_while_no_server_answers_the_route_that_was_asked_for_is_reported(tmp_path: Path) -> None:
    """An override is not gone because the server restarts: the next one takes it again."""
    with socket.socket() as taken:  # bound and not listening: a connection is refused, and nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        runtime = LocalRuntime(Settings(data_dir=tmp_path, model_server_url=f"http://127.0.0.1:{taken.getsockname()[1]}"))
        claim(Settings(data_dir=tmp_path).serving_state_file)
        runtime.route(MODEL, version="v1.5.0")
        seen = runtime.observe(MODEL)
        assert (seen.replicas, seen.ready_replicas, seen.route_version, seen.version) == (1, 0, "v1.5.0", None)
        runtime.route(MODEL, version=None)
        assert runtime.observe(MODEL).route_version is None


def test_an_isolated_server_predicts_for_nobody_keeps_its_process_and_can_still_be_looked_at(
    runtime: LocalRuntime, small: Stack, config: Settings
) -> None:
    predict = f"{config.model_server_url}/api/v1/ml/models/{MODEL}/predict"
    assert httpx.post(predict, json={"assets": []}).status_code == 401, "connected, it asks who is there"
    pid = small.supervisor.pid("model-server")
    runtime.isolate(MODEL, isolated=True)
    until_observed(runtime, lambda state: state.isolated)
    refused = httpx.post(predict, json={"assets": []}, headers={"Authorization": f"Bearer {small.token('operator')}"})
    assert (refused.status_code, refused.json()["title"]) == (503, "Isolated")
    reads = {"Authorization": f"Bearer {small.token('platform')}"}
    assert httpx.get(f"{config.model_server_url}/metrics", headers=reads).status_code == 200

    runtime.restart(MODEL, restart_id="restart-while-isolated")
    runtime.scale(MODEL, replicas=0)
    small.reconcile_serving()
    assert small.supervisor.pid("model-server") == pid, "its memory is evidence"

    runtime.scale(MODEL, replicas=1)
    runtime.isolate(MODEL, isolated=False)
    until_observed(runtime, lambda state: not state.isolated and state.restart_id == "restart-while-isolated")
    assert httpx.post(predict, json={"assets": []}).status_code == 401


def test_a_breach_of_another_model_leaves_this_server_alone(runtime: LocalRuntime) -> None:
    with pytest.raises(Refused, match="this machine serves predictive_maintenance, not pump_pressure"):
        runtime.isolate("pump_pressure", isolated=True)
    assert not runtime.observe(MODEL).isolated


def test_a_dead_server_is_restarted_and_no_other_model_is_taken_for_its_own(tmp_path: Path) -> None:
    """Whose the server is stands in the desired state: it cannot be asked when a restart is needed."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        config = Settings(data_dir=tmp_path, model_server_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        claim(config.serving_state_file)
        LocalRuntime(config).restart(MODEL, restart_id="r1")
        with pytest.raises(Refused, match="not churn"):
            LocalRuntime(config).restart("churn", restart_id="r2")
    assert desired_state(config.serving_state_file)["restart_id"] == "r1"


def test_while_nobody_has_noted_whose_the_server_is_nothing_is_changed_and_it_is_said_what_to_do(tmp_path: Path) -> None:
    """A data folder of an older version, before `mlrunbook up` has run on it."""
    config = Settings(data_dir=tmp_path)
    json_file.patch(config.serving_state_file, {"replicas": 1, "route_version": None, "restart_id": None})
    before = config.serving_state_file.read_bytes()
    with pytest.raises(Refused, match="does not say which model this machine serves, so nothing was changed: start `mlrunbook up`"):
        LocalRuntime(config).scale(MODEL, replicas=0)
    assert config.serving_state_file.read_bytes() == before
    assert claim(config.serving_state_file)["model"] == MODEL
    LocalRuntime(config).scale(MODEL, replicas=0)
    assert desired_state(config.serving_state_file)["replicas"] == 0


def test_an_answer_for_another_model_is_not_taken_for_the_state_of_this_one(tmp_path: Path) -> None:
    claim(Settings(data_dir=tmp_path).serving_state_file)
    other = httpx.MockTransport(lambda _: httpx.Response(200, json={"status": "ok", "model": "churn", "version": "v1"}))
    with pytest.raises(Refused, match="answers for churn, not for predictive_maintenance"):
        LocalRuntime(Settings(data_dir=tmp_path), transport=other).observe(MODEL)


def test_what_the_server_says_of_a_version_that_it_cannot_load_is_said_of_the_instance(tmp_path: Path) -> None:
    claim(Settings(data_dir=tmp_path).serving_state_file)
    why = "predictive_maintenance has no version 'v9.9.9'; registered are v1.5.0"
    said = {"status": "ok", "model": MODEL, "version": "v1.5.0", "notLoaded": {"version": "v9.9.9", "error": why}}
    answer = httpx.MockTransport(lambda _: httpx.Response(200, json=said))
    (instance,) = LocalRuntime(Settings(data_dir=tmp_path), transport=answer).instances(MODEL)
    assert instance.ready
    assert instance.problem == f"cannot load v9.9.9, v1.5.0 serves instead: {why}"


def test_logs_state_config_and_process_are_preserved_without_the_values_of_the_environment(runtime: LocalRuntime, small: Stack) -> None:
    kept = runtime.preserve(MODEL)
    assert {"logs/model-server.log", "serving/model-config.json", "serving/health.json", "serving/processes.json"} <= set(kept)
    process = json.loads(kept["serving/processes.json"])[0]
    assert process["pid"] == small.supervisor.pid("model-server")
    assert "MLRUNBOOK_GATEWAY_TOKEN" in process["environment_names"]
    assert small.token("operator").encode() not in b"".join(kept.values())


def test_what_cannot_be_preserved_is_said_and_the_rest_is_kept(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        elsewhere = Settings(data_dir=tmp_path, model_server_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        serving_config.ensure(elsewhere.serving_config_file, threshold=0.5)
        claim(elsewhere.serving_state_file)
        kept = LocalRuntime(elsewhere).preserve(MODEL)
    assert json.loads(kept["serving/model-config.json"])["threshold"] == 0.5
    assert kept["serving/processes.json.missing"] == b"not readable: no model server process runs"
    assert "serving/health.json.missing" in kept
