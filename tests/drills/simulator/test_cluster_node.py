"""The node that a demo plays in a real cluster: what the runtime asks of the cluster, the model server of this machine becomes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from mlrunbook.adapters.kubernetes.cluster import Cluster, login
from mlrunbook.adapters.kubernetes.runtime import KubernetesRuntime
from mlrunbook.adapters.local import serving_config
from mlrunbook.adapters.local.serving_state import desired_state
from mlrunbook.base import json_file
from mlrunbook.base.settings import Settings
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.policy.cluster import ClusterPolicy
from mlrunbook.drills.simulator.cluster_node import OBJECTS, ClusterNode
from tests.waiting import until

REAL = os.environ.get("MLRUNBOOK_TEST_KUBECONFIG")
MODEL = "predictive_maintenance"
pytestmark = [pytest.mark.kubernetes, pytest.mark.skipif(not REAL, reason="MLRUNBOOK_TEST_KUBECONFIG names no cluster")]


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Settings]:
    """A model server that is at once what its desired state says, as the supervisor makes it."""
    state = Settings(data_dir=tmp_path).serving_state_file

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = desired_state(state)
            body = {"status": "ok", "version": wanted["route_version"] or "v2.0.0", "restartId": wanted["restart_id"]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Health)
    Thread(target=server.serve_forever, daemon=True).start()
    config = Settings(data_dir=tmp_path, model_server_url=f"http://127.0.0.1:{server.server_port}")
    serving_config.ensure(config.serving_config_file, threshold=0.5)
    yield config
    server.shutdown()


@pytest.fixture(scope="module", autouse=True)
def controllers() -> None:
    """An API server alone, without the controllers, makes no pods."""
    from kubernetes import client
    from kubernetes import config as kubeconfig

    api = kubeconfig.new_client_from_config(config_file=REAL)
    core, apps, name = client.CoreV1Api(api), client.AppsV1Api(api), f"mlrunbook-test-node-{os.getpid()}"
    core.create_namespace({"metadata": {"name": name}})
    labels = {"app": "probe"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "probe", "image": "probe"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": pod}
    apps.create_namespaced_deployment(name, {"metadata": {"name": "probe"}, "spec": spec})
    try:
        until(lambda: bool(apps.read_namespaced_deployment("probe", name).status.observed_generation))
    except AssertionError:
        pytest.skip("no controller manager looks after Deployments in this cluster")
    finally:
        core.delete_namespace(name)


@pytest.fixture
def node(config: Settings, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[ClusterNode]:
    monkeypatch.setenv("KUBECONFIG", str(REAL))
    with ClusterNode(config, f"mlrunbook-test-node-{os.getpid()}-{abs(hash(request.node.name)) % 10_000}") as made:
        yield made


@pytest.fixture
def runtime(node: ClusterNode) -> KubernetesRuntime:
    cluster = Cluster(lambda: login(None, node.namespace, config_file=REAL), timeout_s=10)
    return KubernetesRuntime(cluster, ClusterPolicy("predictive_maintenance", OBJECTS))


def test_stopped_and_started_in_the_cluster_the_server_stops_and_starts_here(runtime: KubernetesRuntime, config: Settings) -> None:
    until(lambda: runtime.observe(MODEL).ready_replicas == 1)
    runtime.scale(MODEL, replicas=0)
    until(lambda: desired_state(config.serving_state_file)["replicas"] == 0)
    runtime.scale(MODEL, replicas=1)
    until(lambda: desired_state(config.serving_state_file)["replicas"] == 1)
    until(lambda: runtime.observe(MODEL).ready_replicas == 1)


def test_a_rollout_restarts_the_server_and_is_done_when_it_answers(runtime: KubernetesRuntime, config: Settings) -> None:
    runtime.restart(MODEL, restart_id="incident_1-threshold-0.6")
    until(lambda: runtime.observe(MODEL).restart_id == "incident_1-threshold-0.6")
    assert desired_state(config.serving_state_file)["restart_id"] is not None


def test_the_pod_carries_the_version_that_it_serves_and_the_service_is_bound_to_no_other(
    runtime: KubernetesRuntime, config: Settings
) -> None:
    until(lambda: runtime.observe(MODEL).version == "v2.0.0")
    runtime.route(MODEL, version="v2.0.0")
    until(lambda: desired_state(config.serving_state_file)["route_version"] == "v2.0.0")
    with pytest.raises(Refused, match="no ready pod"):  # there is one pod: no other version waits beside it
        runtime.route(MODEL, version="v1.5.0")


def test_the_config_is_the_same_here_and_there_whoever_changes_it(runtime: KubernetesRuntime, config: Settings) -> None:
    before = runtime.read_config(MODEL)
    runtime.write_config(MODEL, {"human_approval": True}, expected_revision=before.revision)
    until(lambda: serving_config.read(config.serving_config_file).human_approval)
    json_file.patch(config.serving_config_file, {"threshold": 0.002})
    until(lambda: runtime.read_config(MODEL).threshold == 0.002)
    assert runtime.read_config(MODEL).human_approval


def test_isolated_in_the_cluster_the_server_refuses_here(runtime: KubernetesRuntime, config: Settings) -> None:
    runtime.isolate(MODEL, isolated=True)
    until(lambda: bool(desired_state(config.serving_state_file)["isolated"]))
    runtime.isolate(MODEL, isolated=False)
    until(lambda: not desired_state(config.serving_state_file)["isolated"])


def test_nothing_but_a_namespace_on_its_way_out_is_left(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from kubernetes import client
    from kubernetes import config as kubeconfig

    monkeypatch.setenv("KUBECONFIG", str(REAL))
    api = client.CoreV1Api(kubeconfig.new_client_from_config(config_file=REAL))
    with ClusterNode(config, f"mlrunbook-test-node-{os.getpid()}-gone") as node:
        assert node.namespace in {n.metadata.name for n in api.list_node().items}
    assert node.namespace not in {n.metadata.name for n in api.list_node().items}
    until(lambda: all(n.status.phase == "Terminating" for n in api.list_namespace().items if n.metadata.name == node.namespace))
