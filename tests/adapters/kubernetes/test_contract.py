"""The contract of a serving runtime, and what a cluster adds, on the fake API server and on a real one when there is one.

MLRUNBOOK_TEST_KUBECONFIG: a kubeconfig of an administrator of a test cluster; each test gets a namespace and removes it.
MLRUNBOOK_TEST_KUBE_USER_CONFIG: one of a user who may do nothing; it is then given the runtime's own Role, and the runtime is that user.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlrunbook.adapters.kubernetes.access import NEEDED
from mlrunbook.domain.actions import Isolate
from mlrunbook.domain.errors import NotFound, Refused, Transient
from tests.adapters.runtime_contract import FORMER, Case, RuntimeContract
from tests.fake_kubernetes import Answer, FakeKubernetes, kubeconfig, serving
from tests.kubernetes_kit import CONFIG, MODEL, Kit, pod_template

REAL = os.environ.get("MLRUNBOOK_TEST_KUBECONFIG")
USER = os.environ.get("MLRUNBOOK_TEST_KUBE_USER_CONFIG")
ALLOWED = {(a.api_group, a.rule_resource, a.verb) for a in NEEDED}


@pytest.fixture(scope="module")
def fake_url() -> Iterator[tuple[FakeKubernetes, str]]:
    fake = FakeKubernetes()
    with serving(fake) as url:
        yield fake, url


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.kubernetes)])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kit]:
    if request.param == "real":
        if not REAL:
            pytest.skip("MLRUNBOOK_TEST_KUBECONFIG names no cluster")
        made = Kit(Path(REAL), Path(USER) if USER else None)
    else:
        fake, url = request.getfixturevalue("fake_url")
        fake.objects.clear()
        fake.allowed, fake.usage = ALLOWED, {"cpu": "250m", "memory": "128Mi"}
        fake.logs = {("model-server", False): [(60, "INFO ready"), (2, "INFO v2.0.0 serves")]}
        made = Kit(kubeconfig(tmp_path / "admin", url, "admin"), kubeconfig(tmp_path / "worker", url, "worker"))
    try:
        made.seed(autoscaled=True)
        if request.param == "real" and USER:
            made.allow("worker", NEEDED)
        yield made
    finally:
        made.remove()


@pytest.fixture
def case(kit: Kit) -> Case:
    fake = kit.config_file.name == "admin"
    return Case(kit.runtime(), MODEL, restarts=lambda: _revisions(kit), world=kit.specifications, started=kit.start_pods, writes_log=fake)


def _revisions(kit: Kit) -> int:
    return int(kit.deployment().metadata.annotations["deployment.kubernetes.io/revision"])


class TestContract(RuntimeContract):
    pass


def test_stopping_suspends_the_autoscaler_and_starting_gives_it_back_exactly(case: Case, kit: Kit) -> None:
    case.serving()
    before = kit.autoscaler()
    case.runtime.scale(MODEL, replicas=0)
    assert case.observed(lambda state: not state.ready_replicas).autoscaler == "suspended"
    assert kit.autoscaler().spec.scale_target_ref.name != "model-server"
    assert kit.deployment().metadata.annotations["mlrunbook/replicas-before"] == "2"
    case.runtime.scale(MODEL, replicas=2)
    assert case.serving().autoscaler == "active"
    assert kit.autoscaler().spec == before.spec
    assert not [key for key in kit.autoscaler().metadata.annotations or {} if "mlrunbook" in key]
    assert "mlrunbook/replicas-before" not in kit.deployment().metadata.annotations


def test_the_version_behind_the_service_is_that_of_its_ready_pods(case: Case) -> None:
    assert case.serving().version is None  # two versions share the traffic
    case.runtime.route(MODEL, version=FORMER)
    assert case.observed(lambda state: state.version is not None).version == FORMER


def test_traffic_is_not_routed_to_a_version_that_nobody_serves(case: Case) -> None:
    case.serving()
    with pytest.raises(Refused, match=r"no ready pod has app=model-server,version=v9: service/model-service would lead nowhere"):
        case.runtime.route(MODEL, version="v9")
    assert case.runtime.observe(MODEL).route_version is None


def test_the_selector_keeps_its_other_keys_when_the_route_is_removed(case: Case, kit: Kit) -> None:
    case.serving()
    case.runtime.route(MODEL, version=FORMER)
    assert kit.core.read_namespaced_service("model-service", kit.namespace).spec.selector == {"app": "model-server", "version": FORMER}
    case.runtime.route(MODEL, version=None)
    assert kit.core.read_namespaced_service("model-service", kit.namespace).spec.selector == {"app": "model-server"}


def test_other_keys_of_the_configmap_and_of_its_json_stay(case: Case, kit: Kit) -> None:
    case.runtime.write_config(MODEL, {"threshold": 0.7}, expected_revision=case.runtime.read_config(MODEL).revision)
    stored = kit.config_map()
    assert stored["other"] == "stays"
    assert json.loads(stored["model-config.json"]) == {**CONFIG, "threshold": 0.7, "revision": 2}


def test_a_rollout_is_undone_to_a_revision_and_that_can_be_read_back(case: Case, kit: Kit) -> None:
    """The template that is put back gets a new number; it is still found by its old one."""
    case.serving()
    kit.apps.patch_namespaced_deployment("model-server", kit.namespace, {"spec": {"template": pod_template("v2.0.0", "example.com/bad:2")}})
    case.observed(lambda state: state.rollout is not None and "not begun" not in state.rollout.sentence and _revisions(kit) == 2)
    good = next(r for r in case.runtime.revisions(MODEL) if r.has(1))
    assert not good.current
    case.runtime.undo_rollout(MODEL, revision=1)
    case.observed(lambda state: _revisions(kit) == 3 and state.rollout is not None and state.rollout.state == "done")
    current = next(r for r in case.runtime.revisions(MODEL) if r.current)
    assert (current.name, current.number, current.images) == (good.name, 3, good.images)
    assert current.has(1)
    case.runtime.undo_rollout(MODEL, revision=1)
    assert _revisions(kit) == 3


def test_a_pod_names_the_replicaset_that_it_belongs_to(case: Case) -> None:
    case.serving()
    current = next(r for r in case.runtime.revisions(MODEL) if r.current)
    assert current.deployment == "model-server"
    assert sum(i.owner == current.name for i in case.runtime.instances(MODEL)) == 2


def test_an_image_that_cannot_be_pulled_fails_the_rollout_by_the_pods_reason(
    case: Case, kit: Kit, fake_url: tuple[FakeKubernetes, str]
) -> None:
    """Needs a deadline that passes: on the fake at once, on a real server with a deadline of two seconds."""
    case.serving()
    kit.apps.patch_namespaced_deployment("model-server", kit.namespace, {"spec": {"progressDeadlineSeconds": 2}})
    fake_url[0].stuck = True
    try:
        case.runtime.restart(MODEL, restart_id="fails")
        waiting = {"name": "model-server", "image": "x", "imageID": "", "ready": False, "restartCount": 3}
        pulls = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
        bad = {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [{**waiting, "state": pulls}]}

        def nothing_starts() -> None:
            for pod in kit.core.list_namespaced_pod(kit.namespace).items:
                if not pod.status.container_statuses:
                    kit.core.patch_namespaced_pod_status(pod.metadata.name, kit.namespace, {"status": bad})

        case.started = nothing_starts
        failed = case.observed(lambda state: state.rollout is not None and state.rollout.state == "failed").rollout
    finally:
        fake_url[0].stuck = False
    assert failed is not None
    assert failed.restart_id == "fails"
    assert "made no progress in time" in failed.sentence
    assert "model-server ImagePullBackOff, Back-off pulling image" in failed.sentence
    assert case.runtime.observe(MODEL).ready_replicas >= 1  # the old pods stay


def test_isolation_says_what_a_cluster_cannot_promise(case: Case, kit: Kit) -> None:
    case.serving()
    spec = {"podSelector": {"matchLabels": {"app": "model-server"}}, "ingress": [{}], "policyTypes": ["Ingress"]}
    kit.networking.create_namespaced_network_policy(kit.namespace, {"metadata": {"name": "let-callers-in"}, "spec": spec})
    case.runtime.isolate(MODEL, isolated=True)
    said = case.runtime.observe(MODEL).caveats
    assert said[0] == "whether a NetworkPolicy is enforced depends on the cluster's network plugin"
    assert said[1] == "NetworkPolicy let-callers-in still lets traffic through to them"
    kit.apps.patch_namespaced_deployment("model-server", kit.namespace, {"spec": {"replicas": 0}})
    kit.apps.patch_namespaced_deployment("model-server-former", kit.namespace, {"spec": {"replicas": 0}})
    assert "it selects no pod" in case.observed(lambda state: len(state.caveats) == 2 and "no pod" in state.caveats[1]).caveats[1]


def test_the_rehearsal_of_an_isolation_finds_what_would_let_callers_in(case: Case, kit: Kit) -> None:
    case.serving()
    spec = {"podSelector": {}, "ingress": [{}], "policyTypes": ["Ingress"]}
    kit.networking.create_namespaced_network_policy(kit.namespace, {"metadata": {"name": "let-callers-in"}, "spec": spec})
    assert case.runtime.dry_run(MODEL, [Isolate(MODEL, True)])[1] == "NetworkPolicy let-callers-in still lets traffic through to them"
    assert case.runtime.dry_run(MODEL, [Isolate(MODEL, False)]) == []


def test_a_webhook_that_knows_no_dry_run_refuses_nothing(case: Case, fake_url: tuple[FakeKubernetes, str], kit: Kit) -> None:
    """The words of the API server for an admission webhook with side effects; it would say nothing of the kind to the real request."""
    case.serving()
    if kit.config_file.name != "admin":
        pytest.skip("needs an admission webhook")

    def refuse(call: tuple[str, str, str]) -> None:
        if call[2] == "create":
            raise Answer(400, "BadRequest", 'admission webhook "guard.example.com" does not support dry run')

    fake_url[0].before = refuse
    try:
        with pytest.raises(Transient, match="the cluster cannot try it without doing it"):
            case.runtime.dry_run(MODEL, [Isolate(MODEL, True)])
    finally:
        fake_url[0].before = lambda call: None


def test_an_isolation_that_somebody_opened_is_none_until_it_is_asked_for_again(case: Case, kit: Kit) -> None:
    case.serving()
    case.runtime.isolate(MODEL, isolated=True)
    name = kit.networking.list_namespaced_network_policy(kit.namespace).items[0].metadata.name
    kit.networking.patch_namespaced_network_policy(name, kit.namespace, {"spec": {"egress": [{}]}})
    assert not case.runtime.observe(MODEL).isolated
    case.runtime.isolate(MODEL, isolated=True)
    assert case.runtime.observe(MODEL).isolated


def test_evidence_holds_specifications_and_events_and_no_secret_value(case: Case) -> None:
    case.serving()
    kept = case.runtime.preserve(MODEL)
    assert {"cluster/pods.json", "cluster/deployment-model-server.json", "cluster/replicasets.json", "cluster/events.json"} <= set(kept)
    assert {"cluster/configmap.json", "cluster/service.json", "cluster/networkpolicies.json"} <= set(kept)
    assert not [name for name, content in kept.items() if b"hush-hush" in content]
    assert b'"value": "plain"' in kept["cluster/pods.json"]


def test_the_log_has_what_the_server_wrote_also_before_it_crashed(case: Case, kit: Kit, fake_url: tuple[FakeKubernetes, str]) -> None:
    case.serving()
    if kit.config_file.name != "admin":
        pytest.skip("needs a kubelet and a server that writes a log and crashes")
    fake_url[0].logs = {("model-server", False): [(5, "started again")], ("model-server", True): [(900, "started"), (6, "MemoryError")]}
    pod = kit.core.list_namespaced_pod(kit.namespace).items[0].metadata.name
    died = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    state = {"name": "model-server", "image": "x", "imageID": "", "ready": True, "restartCount": 1, "lastState": died}
    kit.core.patch_namespaced_pod_status(pod, kit.namespace, {"status": {"containerStatuses": [state]}})
    text = case.runtime.logs(MODEL, since=datetime.now(UTC) - timedelta(minutes=1))
    assert f"==> {pod} model-server before its last restart <==\nMemoryError\n==> {pod} model-server <==\nstarted again\n" in text
    assert next(i.problem for i in case.runtime.instances(MODEL) if i.name == pod) == "model-server ended before: OOMKilled, exit code 137"


def test_an_object_with_another_name_is_named_with_the_namespace(case: Case, kit: Kit) -> None:
    kit.core.delete_namespaced_config_map("model-config", kit.namespace)
    with pytest.raises(NotFound, match=f"configmap/model-config in namespace {kit.namespace} does not exist: see the names"):
        case.runtime.read_config(MODEL)
