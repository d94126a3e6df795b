"""The cluster runtime when things go wrong between two calls: every verb, killed or cut off anywhere and repeated, changes once."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlrunbook.adapters.kubernetes.access import NEEDED
from mlrunbook.adapters.kubernetes.runtime import KubernetesRuntime
from mlrunbook.domain.actions import UndoRollout
from mlrunbook.domain.errors import NotFound, Refused, Transient
from tests.fake_kubernetes import Answer, FakeKubernetes, Gone, kubeconfig, serving
from tests.kubernetes_kit import MODEL, Kit, pod_template
from tests.waiting import until

Call = tuple[str, str, str]
Verb = Callable[[KubernetesRuntime], Any]


def _configure(runtime: KubernetesRuntime) -> None:
    """As `execute` does it: what holds already is not written."""
    stored = runtime.read_config(MODEL)
    if stored.threshold != 0.7:
        runtime.write_config(MODEL, {"threshold": 0.7}, expected_revision=stored.revision)


VERBS: dict[str, Verb] = {
    "stop": lambda r: r.scale(MODEL, replicas=0),
    "start": lambda r: r.scale(MODEL, replicas=2),
    "route": lambda r: r.route(MODEL, version="v1.5.0"),
    "configure": _configure,
    "restart": lambda r: r.restart(MODEL, restart_id="once"),
    "undo": lambda r: r.undo_rollout(MODEL, revision=1),
    "isolate": lambda r: r.isolate(MODEL, isolated=True),
    "lift": lambda r: r.isolate(MODEL, isolated=False),
}
BEFORE: dict[str, Verb] = {"start": VERBS["stop"], "lift": VERBS["isolate"]}  # what the verb finds


@dataclass
class Scene:
    fake: FakeKubernetes
    kit: Kit
    seeded: dict[tuple[str, str, str], Any]

    def fresh(self, verb: str) -> KubernetesRuntime:
        """The cluster as it was seeded, ready for `verb`, and nothing counted yet."""
        fake = self.fake
        fake.before = fake.after = lambda call: None
        fake.tokens, fake.allowed = {"admin", "worker"}, {(a.api_group, a.rule_resource, a.verb) for a in NEEDED}
        fake.objects = copy.deepcopy(self.seeded)
        if verb in BEFORE:
            BEFORE[verb](self.kit.runtime())
        fake.calls.clear()
        fake.writes.clear()
        return self.kit.runtime(sleep=self.slept.append)

    def __post_init__(self) -> None:
        self.slept: list[float] = []

    def outcome(self) -> dict[Any, Any]:
        """What the verbs may change, without the counters and times that differ from run to run."""
        found = {}
        for key, thing in self.fake.objects.items():
            if key[1] in ("deployments", "services", "configmaps", "horizontalpodautoscalers", "networkpolicies"):
                notes = {k: v for k, v in thing["metadata"].get("annotations", {}).items() if k.startswith("mlrunbook/")}
                spec = copy.deepcopy(thing.get("spec") or thing.get("data"))
                spec.get("template", {}).get("metadata", {}).get("annotations", {}).pop("kubectl.kubernetes.io/restartedAt", None)
                found[key] = (notes, spec)
        return found


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Two versions, an autoscaler, and a rollout of which revision 1 is the past."""
    fake, folder = FakeKubernetes(), tmp_path_factory.mktemp("kube")
    with serving(fake) as url:
        kit = Kit(kubeconfig(folder / "admin", url, "admin"), kubeconfig(folder / "worker", url, "worker"))
        kit.seed(autoscaled=True)
        kit.start_pods()
        kit.apps.patch_namespaced_deployment(
            "model-server", kit.namespace, {"spec": {"template": pod_template("v2.0.0", "example.com/next:2")}}
        )
        kit.start_pods()
        kit.core.list_node()  # one more call lets the controller finish
        yield Scene(fake, kit, copy.deepcopy(fake.objects))


@pytest.fixture(params=VERBS)
def verb(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_killed_between_any_two_calls_and_repeated_it_is_applied_once(scene: Scene, verb: str) -> None:
    """Each call is once the last that the process sees answered, and once one whose answer it never sees."""
    runtime = scene.fresh(verb)
    VERBS[verb](runtime)
    undisturbed, writes, calls = scene.outcome(), list(scene.fake.writes), len(scene.fake.calls)
    assert writes
    for answered in (True, False):
        for last in range(1, calls + 1):
            runtime, seen = scene.fresh(verb), iter(range(1, 1000))

            def cut(call: Call, last: int = last, seen: Iterator[int] = seen) -> None:
                if next(seen) > last - (0 if answered else 1):
                    raise Gone

            setattr(scene.fake, "before" if answered else "after", cut)
            if not answered or last < calls:
                with pytest.raises(Transient, match="gives no answer"):
                    VERBS[verb](runtime)
            scene.fake.before = scene.fake.after = lambda call: None
            VERBS[verb](scene.kit.runtime())
            assert scene.outcome() == undisturbed
            assert scene.fake.writes == writes, f"cut off at call {last}, answered: {answered}"


def test_a_server_that_is_away_for_a_minute_is_transient_and_the_verb_goes_on_afterwards(scene: Scene, verb: str) -> None:
    runtime = scene.fresh(verb)
    VERBS[verb](runtime)
    wanted, calls = scene.outcome(), len(scene.fake.calls)
    runtime, seen, down = scene.fresh(verb), iter(range(1000)), [True]

    def away(call: Call) -> None:
        if down and next(seen) >= calls // 2:
            raise Gone

    scene.fake.before = away
    for _ in range(3):
        with pytest.raises(Transient, match="the API server gives no answer about"):
            VERBS[verb](runtime)
    down.clear()
    VERBS[verb](runtime)
    assert scene.outcome() == wanted


def test_a_process_killed_in_the_middle_of_stopping_leaves_nothing_that_a_new_one_cannot_finish(scene: Scene) -> None:
    """A real process, killed by the server after its first write: the autoscaler is suspended, serving goes on; then it is stopped."""
    scene.fresh("stop")
    pids: list[int] = []

    def kill(call: Call) -> None:
        if scene.fake.writes:
            until(lambda: bool(pids))
            os.kill(pids[0], signal.SIGKILL)
            raise Gone

    scene.fake.after = kill
    code = (
        "from pathlib import Path; from tests.kubernetes_kit import Kit, MODEL; import sys; "
        "kit = Kit(Path(sys.argv[1]), Path(sys.argv[2]), namespace=sys.argv[3]); kit.runtime().scale(MODEL, replicas=0)"
    )
    command = [sys.executable, "-c", code, str(scene.kit.config_file), str(scene.kit.as_file), scene.kit.namespace]
    child = subprocess.Popen(command)
    pids.append(child.pid)
    assert child.wait(60) == -signal.SIGKILL
    scene.fake.after = lambda call: None
    runtime = scene.kit.runtime()
    between = runtime.observe(MODEL)
    assert (between.replicas, between.autoscaler) == (2, "suspended")
    runtime.scale(MODEL, replicas=0)
    assert [(what, how) for what, how, _ in scene.fake.writes] == [("horizontalpodautoscalers", "patch"), ("deployments", "patch")]
    runtime.scale(MODEL, replicas=2)
    assert runtime.observe(MODEL).autoscaler == "active"


def test_a_throttled_call_waits_as_long_as_the_server_asks_and_then_goes_on(scene: Scene, verb: str) -> None:
    runtime, seen = scene.fresh(verb), iter(range(1000))
    scene.slept.clear()

    def throttle(call: Call) -> None:
        if next(seen) == 1:
            raise Answer(429, "TooManyRequests", "too many requests, please try again later", {"Retry-After": "3"})

    scene.fake.before = throttle
    VERBS[verb](runtime)
    assert scene.slept == ([3.0] if len(scene.fake.calls) > 1 else [])
    assert scene.fake.writes


def test_a_server_that_throttles_for_long_is_transient(scene: Scene) -> None:
    runtime = scene.fresh("route")

    def throttle(call: Call) -> None:
        raise Answer(429, "TooManyRequests", "too many requests", {"Retry-After": "120"})

    scene.fake.before = throttle
    with pytest.raises(Transient, match=r"429, to be tried again after 120 s"):
        VERBS["route"](runtime)


@pytest.mark.parametrize("code", [500, 503, 504])
def test_a_broken_server_is_transient(scene: Scene, code: int) -> None:
    runtime = scene.fresh("route")

    def broken(call: Call) -> None:
        raise Answer(code, "InternalError", "etcdserver: request timed out")

    scene.fake.before = broken
    with pytest.raises(Transient, match=f"{code}.*etcdserver: request timed out"):
        VERBS["route"](runtime)


def test_a_token_that_was_renewed_on_disk_is_taken_without_a_word(scene: Scene) -> None:
    """Each sign-in reads the kubeconfig again."""
    runtime = scene.fresh("route")
    runtime.observe(MODEL)
    scene.fake.tokens = {"admin", "renewed"}
    file = scene.kit.as_file
    assert file is not None
    old = file.read_text()
    file.write_text(old.replace('"token": "worker"', '"token": "renewed"'))
    try:
        VERBS["route"](runtime)
    finally:
        file.write_text(old)
    assert runtime.observe(MODEL).route_version == "v1.5.0"


def test_an_expired_token_is_refused_with_how_to_renew_it(scene: Scene, verb: str) -> None:
    runtime = scene.fresh(verb)
    scene.fake.tokens = {"admin"}
    with pytest.raises(Refused, match=r"the token has expired or was revoked\. Log in again, or renew the token of the kubeconfig"):
        VERBS[verb](runtime)
    assert not scene.fake.writes


@pytest.mark.parametrize("access", NEEDED, ids=lambda a: f"{a.verb}-{a.rule_resource}")
def test_a_verb_that_the_role_lacks_is_named_as_the_rule_it_needs(scene: Scene, access: Any) -> None:
    """Every verb of NEEDED is one that the runtime uses: without it, something it does is refused, with the rule to add."""
    scene.fresh("stop")
    scene.fake.usage = {"cpu": "100m"}
    _scaled_by_keda(scene)
    assert scene.fake.allowed is not None
    scene.fake.allowed -= {(access.api_group, access.rule_resource, access.verb)}
    with pytest.raises(Refused) as refused:
        _everything(scene.kit)
    assert access.rule in str(refused.value)


def _scaled_by_keda(scene: Scene) -> None:
    """As KEDA makes it, beside an autoscaler that is nobody's."""
    fake, namespace = scene.fake, scene.kit.namespace
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "model-server"}
    fake.create(namespace, "scaledobjects", {"metadata": {"name": "model-server"}, "spec": {"scaleTargetRef": target}}, dry=False)
    owner = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "model-server", "uid": "u-1", "controller": True}
    meta = {"name": "keda-hpa-model-server", "ownerReferences": [owner]}
    fake.create(namespace, "horizontalpodautoscalers", {"metadata": meta, "spec": {"scaleTargetRef": target}}, dry=False)


def _everything(kit: Kit) -> None:
    runtime = kit.runtime()
    for do in (VERBS["stop"], VERBS["start"], VERBS["route"], _configure, VERBS["restart"], VERBS["undo"], VERBS["isolate"]):
        do(runtime)
    runtime.observe(MODEL)
    policy = kit.networking.list_namespaced_network_policy(kit.namespace).items[0].metadata.name
    kit.networking.patch_namespaced_network_policy(policy, kit.namespace, {"spec": {"egress": [{}]}})
    runtime.isolate(MODEL, isolated=True)
    runtime.isolate(MODEL, isolated=False)
    runtime.logs(MODEL)
    runtime.revisions(MODEL)
    runtime.resources(MODEL)
    kept = runtime.preserve(MODEL)
    if missing := [text.decode() for name, text in kept.items() if name.endswith(".missing")]:
        raise Refused("; ".join(missing))


def test_with_the_role_alone_everything_works_and_each_of_its_verbs_is_called(scene: Scene) -> None:
    scene.fresh("stop")
    scene.fake.usage = {"cpu": "100m"}
    _scaled_by_keda(scene)
    _everything(scene.kit)
    assert set(scene.fake.calls) == {(a.api_group, a.rule_resource, a.verb) for a in NEEDED}


@pytest.mark.parametrize("verb", ["stop", "restart", "undo"])
def test_an_object_that_somebody_changes_meanwhile_is_read_again_and_their_change_stays(scene: Scene, verb: str) -> None:
    runtime = scene.fresh(verb)
    scene.fake.after = _somebody(scene, lambda thing: thing["metadata"].update(labels={"team": "theirs"}))
    VERBS[verb](runtime)
    assert scene.kit.deployment().metadata.labels == {"team": "theirs"}
    assert len([w for w in scene.fake.writes if w[0] == "deployments"]) == 1


def _somebody(scene: Scene, change: Callable[[Any], object]) -> Callable[[Call], None]:
    """Another actor, who writes to the Deployment once, right after we have read it."""

    def after(call: Call) -> None:
        if call[1:] == ("deployments", "get"):
            scene.fake.after = lambda call: None
            key = (scene.kit.namespace, "deployments", "model-server")
            thing = copy.deepcopy(scene.fake.objects[key])
            change(thing)
            scene.fake.version += 1
            thing["metadata"]["resourceVersion"] = str(scene.fake.version)
            scene.fake.objects[key] = thing

    return after


def test_somebody_who_scaled_meanwhile_is_remembered_as_the_count_before(scene: Scene) -> None:
    """The former count is that of the very object that is stopped, not of an older reading."""
    runtime = scene.fresh("stop")

    scene.fake.after = _somebody(scene, lambda thing: thing["spec"].update(replicas=5))
    VERBS["stop"](runtime)
    assert scene.kit.deployment().spec.replicas == 0
    assert scene.kit.deployment().metadata.annotations["mlrunbook/replicas-before"] == "5"


@pytest.mark.parametrize(("verb", "resource"), [("stop", "deployments"), ("route", "services"), ("configure", "configmaps")])
def test_an_object_deleted_between_reading_and_writing_is_named(scene: Scene, verb: str, resource: str) -> None:
    runtime = scene.fresh(verb)

    def deleted(call: Call) -> None:
        if call[1:] == (resource, "patch"):
            for key in [k for k in scene.fake.objects if k[1] == resource]:
                del scene.fake.objects[key]

    scene.fake.before = deleted
    with pytest.raises(NotFound, match=r"in namespace .* does not exist"):
        VERBS[verb](runtime)


def test_what_the_server_finds_invalid_is_refused_in_its_words(scene: Scene) -> None:
    runtime = scene.fresh("undo")
    for key, thing in scene.fake.objects.items():
        if key[1] == "replicasets":
            thing["spec"]["template"]["spec"]["containers"][0]["image"] = ""
    with pytest.raises(Refused, match=r"refuses the change of deployment/model-server .*\(422\): .*image: Required value"):
        runtime.dry_run(MODEL, [UndoRollout(MODEL, 1)])


def test_an_api_server_that_nobody_listens_at_is_transient(tmp_path: Path) -> None:
    kit = Kit(kubeconfig(tmp_path / "dead", "http://127.0.0.1:1", "worker"))
    with pytest.raises(Transient, match="the API server gives no answer about deployment/model-server"):
        kit.runtime().observe(MODEL)


def test_a_kubeconfig_that_is_not_there_says_what_to_set(tmp_path: Path) -> None:
    kit = Kit(kubeconfig(tmp_path / "any", "http://127.0.0.1:1", "worker"))
    kit.as_file = tmp_path / "absent"
    with pytest.raises(Refused, match=r"no cluster to talk to: the kubeconfig .* is not usable"):
        kit.runtime().observe(MODEL)
