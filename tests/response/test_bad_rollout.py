"""On a cluster: a rollout of which no pod serves is undone after approval, once, wherever the run is killed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mlrunbook.adapters.kubernetes.runtime import KubernetesRuntime
from mlrunbook.domain.actions import Path as RunbookPath
from mlrunbook.domain.actions import UndoRollout
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.domain.policy.cluster import ClusterPolicy
from mlrunbook.response.world import World
from mlrunbook.store import incidents, timeline
from tests.fake_kubernetes import FakeKubernetes, kubeconfig, serving
from tests.fakes import MODEL, Clock, FileWorld, empty_store, world_of
from tests.kubernetes_kit import Kit, pod_template
from tests.response.carrying import carry
from tests.response.people import approve, plan, recorded, report, say, told
from tests.response.resolution.test_serving_recovery import hung
from tests.response.test_killed import Killer, _revive, _Tapped, engine, killed_at

__all__ = ["engine"]  # a fixture
READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
WAITS = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}}
LOOPS = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "False"}],
    "containerStatuses": [{"name": "model-server", "ready": False, "restartCount": 4, "state": WAITS}],
}
UNDONE = [("deployments", "patch", "model-server")]
EVERY = 9  # 1 kills at every point
BAD = "example.com/bad:2"


@dataclass
class Cluster:
    """A Deployment whose new template crashes; the platform's model server answers as long as one of its pods is ready."""

    fake: FakeKubernetes
    kit: Kit
    state: Path  # of the FileWorld

    def kubelet(self, _: object = None) -> None:
        pods = [o for key, o in self.fake.objects.items() if key[1] == "pods"]
        for pod in pods:
            if pod["status"].get("phase") == "Pending":
                pod["status"] = copy.deepcopy(LOOPS if pod["spec"]["containers"][0]["image"] == BAD else READY)
        mine = [p["status"] == READY for p in pods if p["metadata"]["name"].startswith("model-server-") and "v2.0.0" in str(p["metadata"])]
        world = FileWorld(self.state, Clock())
        if any(mine) and world.state["hung"]:
            world.set(hung=False)

    def runtime(self, tap: Callable[[str], None] = lambda _: None) -> KubernetesRuntime:
        return _Tapping(self.kit.cluster(), ClusterPolicy(MODEL, self.kit.names), tap)


class _Tapping(KubernetesRuntime):
    def __init__(self, cluster: object, policy: ClusterPolicy, tap: Callable[[str], None]) -> None:
        super().__init__(cluster, policy)  # type: ignore[arg-type]
        self._tap = tap

    def undo_rollout(self, model: str, *, revision: int) -> None:
        self._tap("before undo")
        super().undo_rollout(model, revision=revision)
        self._tap("after undo")


@pytest.fixture
def cluster(tmp_path: Path, clock: Clock, file_world: FileWorld) -> Iterator[Cluster]:
    """A month old, and ten minutes ago somebody rolled out a template that crashes; nothing of the old one is left running."""
    hung(file_world)
    fake = FakeKubernetes(now=f"{clock.at - timedelta(days=30):%Y-%m-%dT%H:%M:%SZ}")
    with serving(fake) as url:
        kit = Kit(kubeconfig(tmp_path / "admin", url, "admin"), kubeconfig(tmp_path / "worker", url, "worker"))
        kit.seed()
        kit.start_pods()
        fake.now = f"{clock.at - timedelta(minutes=10):%Y-%m-%dT%H:%M:%SZ}"
        kit.apps.patch_namespaced_deployment("model-server", kit.namespace, {"spec": {"template": pod_template("v2.0.0", BAD)}})
        made = Cluster(fake, kit, file_world.path)
        old = [o["metadata"]["name"] for key, o in fake.objects.items() if key[1] == "pods" and BAD not in str(o["spec"])]
        for name in (name for name in old if not name.startswith("model-server-former")):
            kit.core.delete_namespaced_pod(name, kit.namespace)
        made.kubelet()
        kit.core.list_node()
        fake.after = made.kubelet
        yield made


@pytest.fixture
def on_the_cluster(world: World, cluster: Cluster) -> World:
    return replace(world, runtime=cluster.runtime(), settle_s=5.0)


def alerted(world: World) -> str:
    return report(world, Severity.CRITICAL, IncidentType.INFRASTRUCTURE, description="the model server is down")


def test_the_last_revision_that_served_is_put_back_after_approval_read_back_and_measured(
    on_the_cluster: World, cluster: Cluster, clock: Clock
) -> None:
    world, incident_id = on_the_cluster, alerted(on_the_cluster)
    clock.advance(seconds=20)
    assert carry(world, incident_id, "run-1") == "pending"
    assert cluster.fake.writes == []
    assert recorded(world, incident_id, "diagnosis")["cause"] == "bad_rollout"
    asked = plan(world, incident_id)
    assert asked is not None
    assert (asked.path, asked.actions) == (RunbookPath.UNDO_ROLLOUT, (UndoRollout(MODEL, 1),))
    assert "CrashLoopBackOff, back-off 40s restarting failed container" in asked.reasons[0]
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    assert cluster.fake.writes == UNDONE
    template = cluster.kit.deployment().spec.template
    assert template.spec.containers[0].image != BAD
    assert "Done, read back: undo the rollout of predictive_maintenance, back to revision 1" in told(world, incident_id, "action")
    assert "the model server answers" in recorded(world, incident_id, "recovery")["sentence"]


def test_rejected_the_rollout_stays(on_the_cluster: World, cluster: Cluster, clock: Clock) -> None:
    incident_id = alerted(on_the_cluster)
    clock.advance(seconds=20)
    carry(on_the_cluster, incident_id, "run-1")
    say(on_the_cluster, incident_id, "rejected")
    assert carry(on_the_cluster, incident_id, "run-1") == "rejected"
    assert cluster.fake.writes == []


def test_a_paused_deployment_is_found_by_the_rehearsal_and_a_human_is_told(on_the_cluster: World, cluster: Cluster, clock: Clock) -> None:
    cluster.kit.apps.patch_namespaced_deployment("model-server", cluster.kit.namespace, {"spec": {"paused": True}})
    incident_id = alerted(on_the_cluster)
    clock.advance(seconds=20)
    assert carry(on_the_cluster, incident_id, "run-1") == "waiting for a human"
    [said] = [text for text in told(on_the_cluster, incident_id, "plan") if text.startswith("No plan")]
    assert "deployment/model-server is paused" in said


def test_killed_at_every_point_the_rollout_is_undone_once(
    engine: Engine, on_the_cluster: World, cluster: Cluster, clock: Clock, tmp_path: Path
) -> None:
    world, seeded, state = on_the_cluster, copy.deepcopy(cluster.fake.objects), cluster.state

    def walk(engine: Engine, state: Path, incident_id: str, holder: str, now: datetime, kill_at: int | None = None) -> int:
        killer, moved = Killer(kill_at), Clock(now)
        base = replace(world_of(engine, FileWorld(state, moved, killer), moved), runtime=cluster.runtime(killer), settle_s=5.0)
        tapped = _Tapped(**base.__dict__)
        tapped.__dict__["tap"] = killer
        if carry(tapped, incident_id, holder) == "pending":
            approve(base, incident_id)
            moved.advance(minutes=2)
            carry(tapped, incident_id, holder)
        return killer.count

    def fresh() -> str:
        empty_store(engine)
        cluster.fake.objects = copy.deepcopy(seeded)
        cluster.fake.writes.clear()
        FileWorld(state, clock).set(hung=True)
        return alerted(world)

    points = walk(engine, state, fresh(), "run-0", clock.at + timedelta(seconds=20))
    assert points > 25, "the run was not tapped"
    wrong = []
    for at in range(1, points + 1, EVERY):
        incident_id, now = fresh(), clock.at + timedelta(seconds=20)
        killed = killed_at(engine, state, incident_id, "run-1", now, at, walk)
        for holder in ("run-1" if at % 2 else "run-2", "run-3"):
            now += timedelta(minutes=5)
            _revive(world, now)
            walk(engine, state, incident_id, holder, now)
        with world.transaction() as conn:
            status, chain = incidents.get(conn, incident_id).status, timeline.broken_at(conn, incident_id)
        if (killed, status, cluster.fake.writes, chain) != (True, Status.CLOSED, UNDONE, None):
            wrong.append(f"point {at}: killed {killed}, {status}, {cluster.fake.writes}, chain broken at {chain}")
    assert wrong == []
