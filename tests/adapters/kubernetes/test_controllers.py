"""A change that a controller would take back is refused beforehand, or the controller is paused: whoever owns, scales or applies it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlrunbook.adapters.kubernetes.access import NEEDED
from mlrunbook.domain.actions import Action, Configure, Restart, RouteTraffic, Scale, UndoRollout
from mlrunbook.domain.errors import Refused
from tests.fake_kubernetes import FakeKubernetes, kubeconfig, serving
from tests.kubernetes_kit import CONFIG, MODEL, Kit, pod_template

FORMER = "v1.5.0"
STOP, ROUTE, RESTART = Scale(MODEL, 0), RouteTraffic(MODEL, FORMER), Restart(MODEL, "r-1")
CONFIGURE, UNDO = Configure(MODEL, {"threshold": 0.7}), UndoRollout(MODEL, 1)
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakeKubernetes, str]]:
    fake = FakeKubernetes()
    with serving(fake) as url:
        yield fake, url


@pytest.fixture
def fake(served: tuple[FakeKubernetes, str]) -> FakeKubernetes:
    served[0].objects.clear()
    served[0].allowed = {(a.api_group, a.rule_resource, a.verb) for a in NEEDED}
    return served[0]


@pytest.fixture
def kit(fake: FakeKubernetes, served: tuple[FakeKubernetes, str], tmp_path: Path) -> Kit:
    made = Kit(kubeconfig(tmp_path / "admin", served[1], "admin"), kubeconfig(tmp_path / "worker", served[1], "worker"))
    made.seed(autoscaled=True)
    made.start_pods()
    made.apps.patch_namespaced_deployment("model-server", made.namespace, {"spec": {"template": pod_template("v2.0.0", "example.com/2")}})
    made.start_pods()
    return made


def do(kit: Kit, action: Action) -> None:
    runtime = kit.runtime()
    match action:
        case Scale():
            runtime.scale(MODEL, replicas=action.replicas)
        case RouteTraffic():
            runtime.route(MODEL, version=action.version)
        case Restart():
            runtime.restart(MODEL, restart_id=action.restart_id)
        case Configure():
            runtime.write_config(MODEL, action.settings, expected_revision=runtime.read_config(MODEL).revision)
        case UndoRollout():
            runtime.undo_rollout(MODEL, revision=action.revision)


def is_refused(kit: Kit, action: Action) -> str:
    """In the dry run and for real, in the same words, and nothing is changed."""
    before = kit.specifications()
    with pytest.raises(Refused) as dry:
        kit.runtime().dry_run(MODEL, [action])
    with pytest.raises(Refused) as real:
        do(kit, action)
    assert str(dry.value) == str(real.value)
    assert kit.specifications() == before
    return str(real.value)


def is_done(kit: Kit, action: Action) -> None:
    before = kit.specifications()
    kit.runtime().dry_run(MODEL, [action])
    assert kit.specifications() == before
    do(kit, action)
    assert kit.specifications() != before


def meta(fake: FakeKubernetes, kit: Kit, resource: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = fake.objects[kit.namespace, resource, name]["metadata"]
    return found


def owner(kind: str, group: str = "example.com/v1", *, controller: bool = True) -> dict[str, Any]:
    return {"apiVersion": group, "kind": kind, "name": "churn", "uid": "u-1", "controller": controller}


OBJECTS = [
    (STOP, "deployments", "model-server"),
    (RESTART, "deployments", "model-server"),
    (UNDO, "deployments", "model-server"),
    (ROUTE, "services", "model-service"),
]


class TestAnOwner:
    @pytest.mark.parametrize(("action", "resource", "name"), OBJECTS)
    @pytest.mark.parametrize(
        ("kind", "group", "command"),
        [
            ("InferenceService", "serving.kserve.io/v1beta1", "annotate inferenceservice churn serving.kserve.io/stop=true"),
            ("Revision", "serving.knative.dev/v1", "label kservice churn-live networking.knative.dev/visibility=cluster-local"),
            ("SeldonDeployment", "machinelearning.seldon.io/v1", "edit seldondeployment.machinelearning.seldon.io churn"),
            ("Rollout", "argoproj.io/v1alpha1", "edit rollout.argoproj.io churn"),
        ],
    )
    def test_puts_back_what_is_changed_by_hand(  # noqa: PLR0913
        self, fake: FakeKubernetes, kit: Kit, action: Action, resource: str, name: str, kind: str, group: str, command: str
    ) -> None:
        found = meta(fake, kit, resource, name)
        found["ownerReferences"] = [owner(kind, group)]
        found["labels"] = {"serving.knative.dev/service": "churn-live"}
        said = is_refused(kit, action)
        assert f"belongs to {kind}/churn" in said
        assert f"kubectl -n {kit.namespace} {command}" in said

    def test_counts_whether_or_not_it_says_that_it_is_the_controller(self, fake: FakeKubernetes, kit: Kit) -> None:
        meta(fake, kit, "deployments", "model-server")["ownerReferences"] = [owner("ModelServer", controller=False)]
        is_refused(kit, STOP)

    def test_that_leaves_such_changes_alone_is_said_once_on_the_object(self, fake: FakeKubernetes, kit: Kit) -> None:
        found = meta(fake, kit, "deployments", "model-server")
        found["ownerReferences"], found["annotations"]["mlrunbook/self-heal"] = [owner("ModelServer")], "off"
        is_done(kit, STOP)

    def test_of_an_autoscaler_points_it_back(self, fake: FakeKubernetes, kit: Kit) -> None:
        meta(fake, kit, "horizontalpodautoscalers", "by-load")["ownerReferences"] = [owner("InferenceService", "serving.kserve.io/v1beta1")]
        assert "hpa/by-load belongs to InferenceService/churn" in is_refused(kit, STOP)


class TestKeda:
    @pytest.fixture
    def scaled(self, fake: FakeKubernetes, kit: Kit) -> dict[str, Any]:
        """As KEDA makes it: a ScaledObject, and a HorizontalPodAutoscaler that belongs to it."""
        body = {"metadata": {"name": "churn"}, "spec": {"scaleTargetRef": {"name": "model-server"}, "minReplicaCount": 1}}
        fake.create(kit.namespace, "scaledobjects", body, dry=False)
        meta(fake, kit, "horizontalpodautoscalers", "by-load")["ownerReferences"] = [owner("ScaledObject", "keda.sh/v1alpha1")]
        return body

    def annotations(self, fake: FakeKubernetes, kit: Kit) -> dict[str, str]:
        return dict(meta(fake, kit, "scaledobjects", "churn").get("annotations") or {})

    @pytest.mark.parametrize("before", [{}, {"autoscaling.keda.sh/paused-replicas": "3"}, {"autoscaling.keda.sh/paused": "true"}])
    def test_is_paused_while_serving_is_stopped_and_gets_back_what_was_there(
        self, fake: FakeKubernetes, kit: Kit, scaled: dict[str, Any], before: dict[str, str]
    ) -> None:
        meta(fake, kit, "scaledobjects", "churn")["annotations"] = dict(before)
        assert kit.runtime().observe(MODEL).autoscaler == "active"
        is_done(kit, STOP)
        do(kit, STOP)
        assert self.annotations(fake, kit)["autoscaling.keda.sh/paused-replicas"] == "0"
        assert kit.autoscaler().spec.scale_target_ref.name == "model-server", "KEDA's own is KEDA's business"
        assert (state := kit.runtime().observe(MODEL)).autoscaler == "suspended"
        assert state.replicas == 0
        is_done(kit, Scale(MODEL, 2))
        assert self.annotations(fake, kit) == before
        assert kit.runtime().observe(MODEL).autoscaler == "active"

    def test_that_somebody_has_paused_at_nothing_stays_paused(self, fake: FakeKubernetes, kit: Kit, scaled: dict[str, Any]) -> None:
        meta(fake, kit, "scaledobjects", "churn")["annotations"] = {"autoscaling.keda.sh/paused-replicas": "0"}
        is_done(kit, STOP)
        is_done(kit, Scale(MODEL, 2))
        assert self.annotations(fake, kit) == {"autoscaling.keda.sh/paused-replicas": "0"}

    def test_that_we_may_not_pause_refuses_the_stop_and_says_what_pauses_it(
        self, fake: FakeKubernetes, kit: Kit, scaled: dict[str, Any]
    ) -> None:
        fake.allowed = {rule for rule in fake.allowed or () if rule[0] != "keda.sh"}
        said = is_refused(kit, STOP)
        assert f"kubectl -n {kit.namespace} annotate scaledobject churn autoscaling.keda.sh/paused-replicas=0" in said
        assert kit.runtime().observe(MODEL).autoscaler == "active"

    def test_of_another_deployment_is_left_alone(self, fake: FakeKubernetes, kit: Kit) -> None:
        body = {"metadata": {"name": "churn"}, "spec": {"scaleTargetRef": {"name": "model-server-former"}}}
        fake.create(kit.namespace, "scaledobjects", body, dry=False)
        is_done(kit, STOP)
        assert self.annotations(fake, kit) == {}


ARGO = {"annotations": {"argocd.argoproj.io/tracking-id": "churn-app:apps/Deployment:ml/model-server"}}
FLUX = {"labels": {"kustomize.toolkit.fluxcd.io/name": "serving", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}}
HELM = {"labels": {"helm.toolkit.fluxcd.io/name": "serving"}}
CONFIG_SYNC = {"annotations": {"configmanagement.gke.io/managed": "enabled", "configsync.gke.io/resource-id": "x"}}
ADDON = {"labels": {"addonmanager.kubernetes.io/mode": "Reconcile"}}
SOURCES: list[tuple[dict[str, Any], str]] = [
    (ARGO, "kubectl -n argocd patch application churn-app"),
    ({"labels": {"argocd.argoproj.io/instance": "churn-app"}}, "kubectl -n argocd patch application churn-app"),
    ({"managedFields": [{"manager": "argocd-controller", "operation": "Update"}]}, "kubectl -n argocd patch application"),
    (FLUX, "kustomize.toolkit.fluxcd.io/reconcile=disabled"),
    (HELM, "helm.toolkit.fluxcd.io/driftDetection=disabled"),
    (CONFIG_SYNC, "configmanagement.gke.io/managed=disabled"),
    ({"managedFields": [{"manager": "configsync", "operation": "Update"}]}, "configmanagement.gke.io/managed=disabled"),
    (ADDON, "addonmanager.kubernetes.io/mode: EnsureExists"),
]
FIELDS: dict[str, tuple[Action, str, str, dict[str, Any]]] = {
    "stop": (STOP, "deployments", "model-server", {"spec": {"replicas": 2}}),
    "undo": (UNDO, "deployments", "model-server", {"spec": {"template": {"spec": {}}}}),
    "route": (ROUTE, "services", "model-service", {"spec": {"selector": {"app": "model-server", "version": "v2.0.0"}}}),
    "configure": (CONFIGURE, "configmaps", "model-config", {"data": {"model-config.json": "{}"}}),
}


def marked(fake: FakeKubernetes, kit: Kit, name: str, marks: dict[str, Any], source: dict[str, Any] | None) -> dict[str, Any]:
    found = meta(fake, kit, *FIELDS[name][1:3])
    for key, value in marks.items():
        found[key] = {**found.get(key, {}), **value} if isinstance(value, dict) else value
    if source is not None:
        found.setdefault("annotations", {})[LAST_APPLIED] = json.dumps(source)
    return found


class TestGitOps:
    @pytest.mark.parametrize("known", [True, False], ids=["the source has the field", "nobody knows"])
    @pytest.mark.parametrize(("marks", "command"), SOURCES)
    @pytest.mark.parametrize("name", FIELDS)
    def test_would_undo_it(self, fake: FakeKubernetes, kit: Kit, name: str, marks: dict[str, Any], command: str, known: bool) -> None:
        marked(fake, kit, name, marks, FIELDS[name][3] if known else None)
        assert command in is_refused(kit, FIELDS[name][0])

    @pytest.mark.parametrize(("marks", "command"), SOURCES)
    @pytest.mark.parametrize("name", FIELDS)
    def test_leaves_alone_what_its_source_leaves_open(
        self, fake: FakeKubernetes, kit: Kit, name: str, marks: dict[str, Any], command: str
    ) -> None:
        marked(fake, kit, name, marks, {"spec": {"selector": {"app": "model-server"}}})
        is_done(kit, FIELDS[name][0])

    @pytest.mark.parametrize(
        ("name", "fields", "refused"),
        [
            ("stop", {"f:spec": {"f:replicas": {}}}, True),
            ("stop", {"f:spec": {"f:template": {"f:spec": {}}}}, False),
            ("route", {"f:spec": {"f:selector": {}}}, True),
            ("configure", {"f:data": {"f:model-config.json": {}}}, True),
            ("configure", {"f:data": {"f:other": {}}}, False),
        ],
    )
    def test_says_by_server_side_apply_what_its_source_has(
        self, fake: FakeKubernetes, kit: Kit, name: str, fields: dict[str, Any], refused: bool
    ) -> None:
        marks = FLUX | {"managedFields": [{"manager": "kustomize-controller", "operation": "Apply", "fieldsV1": fields}]}
        marked(fake, kit, name, marks, None)
        (is_refused if refused else is_done)(kit, FIELDS[name][0])

    @pytest.mark.parametrize(
        ("marks", "pause"),
        [
            (ARGO, {"mlrunbook/self-heal": "off"}),
            (FLUX, {"kustomize.toolkit.fluxcd.io/reconcile": "disabled"}),
            (FLUX, {"kustomize.toolkit.fluxcd.io/ssa": "Ignore"}),
            (HELM, {"helm.toolkit.fluxcd.io/driftDetection": "disabled"}),
            (CONFIG_SYNC, {"configmanagement.gke.io/managed": "disabled"}),
        ],
    )
    @pytest.mark.parametrize("name", FIELDS)
    def test_that_is_paused_undoes_nothing(
        self, fake: FakeKubernetes, kit: Kit, name: str, marks: dict[str, Any], pause: dict[str, str]
    ) -> None:
        marked(fake, kit, name, marks, FIELDS[name][3]).setdefault("annotations", {}).update(pause)
        is_done(kit, FIELDS[name][0])

    @pytest.mark.parametrize(("fields", "refused"), [({"f:spec": {"f:replicas": {}}}, True), ({"f:spec": {"f:template": {}}}, False)])
    def test_of_config_sync_says_what_its_source_has(self, fake: FakeKubernetes, kit: Kit, fields: dict[str, Any], refused: bool) -> None:
        marks = {"annotations": CONFIG_SYNC["annotations"] | {"configsync.gke.io/declared-fields": json.dumps(fields)}}
        marked(fake, kit, "stop", marks, None)
        (is_refused if refused else is_done)(kit, STOP)

    def test_that_only_begins_an_addon_leaves_it_alone(self, fake: FakeKubernetes, kit: Kit) -> None:
        marked(fake, kit, "stop", {"labels": {"addonmanager.kubernetes.io/mode": "EnsureExists"}}, FIELDS["stop"][3])
        is_done(kit, STOP)

    def test_is_no_matter_to_a_restart(self, fake: FakeKubernetes, kit: Kit) -> None:
        """The mark of a restart is an annotation that no source has."""
        marked(fake, kit, "stop", ARGO, None)
        is_done(kit, RESTART)


class TestPodsOfAnotherWorkload:
    """Argo Rollouts takes the pod template of a Deployment that runs nothing itself (`workloadRef`)."""

    @pytest.fixture
    def rollout(self, fake: FakeKubernetes, kit: Kit) -> None:
        """The pods of the Deployment are a Rollout's now."""
        mine = meta(fake, kit, "deployments", "model-server")["uid"]
        for (_, resource, _), thing in fake.objects.items():
            owners = thing["metadata"].get("ownerReferences") or [{}]
            if resource == "replicasets" and owners[0].get("uid") == mine:
                thing["metadata"]["ownerReferences"] = [owner("Rollout", "argoproj.io/v1alpha1") | {"uid": "r-1"}]
        fake.objects[kit.namespace, "deployments", "model-server"]["spec"] |= {"replicas": 0, "paused": True}

    def test_are_not_stopped_by_scaling_the_deployment(self, kit: Kit, rollout: None) -> None:
        assert f"kubectl -n {kit.namespace} scale rollout.argoproj.io/churn --replicas=0" in is_refused(kit, STOP)

    def test_serve_although_the_deployment_has_none(self, kit: Kit, rollout: None) -> None:
        assert kit.runtime().observe(MODEL).replicas > 0

    @pytest.mark.parametrize(("kind", "refused"), [("StatefulSet", True), ("Job", False)])
    def test_are_those_that_go_on_serving(self, fake: FakeKubernetes, kit: Kit, kind: str, refused: bool) -> None:
        pod = copy.deepcopy(next(thing for (_, resource, _), thing in fake.objects.items() if resource == "pods"))
        pod["metadata"] |= {"name": "another-0", "uid": "u-2", "ownerReferences": [owner(kind, "example.com/v1")]}
        fake.objects[kit.namespace, "pods", "another-0"] = pod
        (is_refused if refused else is_done)(kit, STOP)


class TestASelectorThatIsNotTheModels:
    @pytest.mark.parametrize("selector", [None, {}, {"version": "v2.0.0"}], ids=str)
    @pytest.mark.parametrize("version", [FORMER, "v7"])
    def test_takes_any_pod_with_that_version(self, fake: FakeKubernetes, kit: Kit, selector: dict[str, str] | None, version: str) -> None:
        _another_application(kit, "v7")
        fake.objects[kit.namespace, "services", "model-service"]["spec"]["selector"] = selector
        said = is_refused(kit, RouteTraffic(MODEL, version))
        assert f"kubectl -n {kit.namespace} patch service model-service -p '" in said

    def test_is_not_emptied_either(self, fake: FakeKubernetes, kit: Kit) -> None:
        fake.objects[kit.namespace, "services", "model-service"]["spec"]["selector"] = {"version": FORMER}
        is_refused(kit, RouteTraffic(MODEL, None))

    def test_picks_pods_of_another_application(self, fake: FakeKubernetes, kit: Kit) -> None:
        _another_application(kit, "v7")
        fake.objects[kit.namespace, "services", "model-service"]["spec"]["selector"] = {"tier": "serving"}
        assert "pod billing-" in is_refused(kit, RouteTraffic(MODEL, "v7"))

    def test_leads_out_of_the_cluster(self, fake: FakeKubernetes, kit: Kit) -> None:
        fake.objects[kit.namespace, "services", "model-service"]["spec"] = {"type": "ExternalName", "externalName": "models.example.com"}
        is_refused(kit, ROUTE)


def _another_application(kit: Kit, version: str) -> None:
    labels = {"app": "billing", "tier": "serving", "version": version}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "billing", "image": "example.com/billing:7"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "billing"}}, "template": template}
    kit.apps.create_namespaced_deployment(kit.namespace, {"metadata": {"name": "billing"}, "spec": spec})
    kit.start_pods()


def test_what_nobody_else_manages_is_changed(kit: Kit) -> None:
    for action, *_ in FIELDS.values():
        is_done(kit, action)
    assert json.loads(kit.config_map()["model-config.json"]) == {**CONFIG, "threshold": 0.7, "revision": 2}


class TestADeploymentWithoutAServiceOrAConfigOfOurs:
    """As many teams have it: it is stopped, restarted and looked at; what it cannot do says who does it."""

    @pytest.fixture
    def bare(self, kit: Kit) -> Kit:
        kit.names = replace(kit.names, service=None, config_map=None)
        return kit

    def test_is_observed_and_scaled(self, bare: Kit) -> None:
        state = bare.runtime().observe(MODEL)
        assert (state.replicas, state.config, state.route_version) == (2, None, None)
        bare.runtime().scale(MODEL, replicas=0)
        assert bare.deployment().spec.replicas == 0

    @pytest.mark.parametrize("action", [ROUTE, CONFIGURE], ids=str)
    def test_refuses_what_it_cannot_do_and_says_what_to_name(self, bare: Kit, action: Action) -> None:
        before = bare.specifications()
        with pytest.raises(Refused, match=r"policy names no (Service|ConfigMap)"):
            bare.runtime().dry_run(MODEL, [action])
        assert bare.specifications() == before

    def test_leaves_evidence_without_them(self, bare: Kit) -> None:
        kept = bare.runtime().preserve(MODEL)
        assert "cluster/deployment-model-server.json" in kept
        assert not [name for name in kept if name.startswith(("cluster/service", "cluster/configmap"))]
