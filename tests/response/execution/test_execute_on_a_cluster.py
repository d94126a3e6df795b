"""Every verb of the cluster goes through execute(): journaled with the state before, read back, and failed by the pods' own words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlrunbook.domain.actions import Action, Configure, Isolate, Restart, RouteTraffic, Scale, UndoRollout
from mlrunbook.domain.errors import Refused, Unknown
from tests.fake_kubernetes import FakeKubernetes, kubeconfig, serving
from tests.fakes import MODEL
from tests.kubernetes_kit import Kit, pod_template
from tests.response.execution.test_execute import Scene, make, scene

__all__ = ["make", "scene"]  # fixtures

READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
PULLS = {"name": "model-server", "ready": False, "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
FAILS = {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [PULLS]}


@pytest.fixture
def fake(scene: Scene, tmp_path: Path) -> Iterator[FakeKubernetes]:
    """The scene's world on a cluster with two revisions, an autoscaler, and a kubelet that starts every new pod."""
    fake = FakeKubernetes()
    with serving(fake) as url:
        kit = Kit(kubeconfig(tmp_path / "admin", url, "admin"), kubeconfig(tmp_path / "worker", url, "worker"))
        kit.seed(autoscaled=True)
        kit.start_pods()
        newer = {"spec": {"template": pod_template("v2.0.0", "example.com/next:2")}}
        kit.apps.patch_namespaced_deployment("model-server", kit.namespace, newer)
        kit.start_pods()
        kit.core.list_node()
        fake.after = lambda call: kubelet(fake, READY)
        scene.world = replace(scene.world, runtime=kit.runtime(), settle_s=2.0)
        yield fake


def kubelet(fake: FakeKubernetes, status: dict[str, object]) -> None:
    for (_, resource, _), pod in fake.objects.items():
        if resource == "pods" and pod["status"].get("phase") == "Pending" and "containerStatuses" not in pod["status"]:
            pod["status"] = dict(status)


@pytest.mark.parametrize(
    ("action", "before"),
    [
        (Scale(MODEL, 0), {"replicas": 2, "ready_replicas": 2, "autoscaler": "active"}),
        (RouteTraffic(MODEL, "v1.5.0"), {"version": None, "serves": None, "replicas": 2}),
        (Configure(MODEL, {"threshold": 0.7}), {"threshold": 0.5}),
        (Restart(MODEL, "once"), {"restart_id": None, "ready": True}),
        (UndoRollout(MODEL, 1), {"revision": 2, "in_place": False, "ready": True}),
        (Isolate(MODEL, True), {"isolated": False}),
    ],
    ids=lambda value: value.kind if isinstance(value, Action) else "",
)
def test_it_is_done_once_and_read_back(scene: Scene, fake: FakeKubernetes, action: Action, before: dict[str, object]) -> None:
    plan = scene.approved(action)
    row = scene.do(plan)
    assert (row.state, row.before) == ("done", before)
    writes = list(fake.writes)
    assert scene.do(plan).state == "done"
    assert fake.writes == writes


def test_people_are_told_what_an_isolation_rests_on(scene: Scene, fake: FakeKubernetes) -> None:
    scene.do(scene.approved(Isolate(MODEL, True)))
    assert any("whether a NetworkPolicy is enforced depends on the cluster's network plugin" in text for text in scene.said())


def test_serving_that_starts_again_has_its_autoscaler_back(scene: Scene, fake: FakeKubernetes) -> None:
    scene.do(scene.approved(Scale(MODEL, 0)))
    row = scene.do(scene.approved(Scale(MODEL, 2)))
    assert row.before == {"replicas": 0, "ready_replicas": 0, "autoscaler": "suspended"}
    assert scene.world.runtime.observe(MODEL).autoscaler == "active"


def test_a_rollout_that_makes_no_progress_is_refused_at_once_by_the_pods_reason(scene: Scene, fake: FakeKubernetes) -> None:
    fake.stuck = True
    fake.after = lambda call: kubelet(fake, FAILS)
    plan = scene.approved(Restart(MODEL, "fails"))
    with pytest.raises(Refused, match=r"made no progress in time .* model-server CrashLoopBackOff"):
        scene.do(plan)
    assert scene.state(plan) == "refused"


def test_what_can_no_longer_be_read_back_is_unknown_and_asked_about(scene: Scene, fake: FakeKubernetes) -> None:
    """The token expires right after the change."""

    def expired(call: tuple[str, str, str]) -> None:
        if fake.writes:
            fake.tokens = {"admin"}

    fake.after = expired
    plan = scene.approved(RouteTraffic(MODEL, "v1.5.0"))
    with pytest.raises(Unknown, match=r"cannot be read back: .* the token has expired"):
        scene.do(plan)
    assert scene.state(plan) == "unknown"
    fake.tokens, fake.after = {"admin", "worker"}, lambda call: None
    assert scene.do(plan).state == "done", "looked at once more, not applied again"
    assert len(fake.writes) == 1
