"""The serving runtime of a cluster: the runbook's kubectl lines behind `mlrunbook.ports.ServingRuntime`.

Every verb sets a state and may be repeated: each of its writes is one request that either is in place or is not, and what a later
write needs to know of the time before is noted by the request that changes it. Killed between any two, the same verb completes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from mlrunbook.adapters.fields import understood
from mlrunbook.adapters.kubernetes import autoscaler, config, controllers, evidence, isolation, reading
from mlrunbook.adapters.kubernetes.cluster import JSON, Cluster, Object, matches
from mlrunbook.adapters.kubernetes.cluster import selector as selector_words
from mlrunbook.adapters.kubernetes.errors import Conflict
from mlrunbook.domain.actions import Action, Configure, Isolate, Restart, RouteTraffic, Scale, UndoRollout, check_own
from mlrunbook.domain.errors import Invalid, NotFound, Refused, Transient
from mlrunbook.domain.observed import Instance, Resources, Revision, ServingConfig, ServingState
from mlrunbook.domain.policy.cluster import ClusterObjects, ClusterPolicy
from mlrunbook.ports import MISSING

REPLICAS_BEFORE = "mlrunbook/replicas-before"  # annotation of a stopped Deployment, for people: the journal has it too
_NO_DRY_RUN = "does not support dry run"  # what the API server answers where an admission webhook has side effects
CONFLICTS = 5  # how often an object that others keep changing is read again before the task is asked to wait
CLUSTER = "the cluster"  # whose answers these are
Done = TypeVar("Done")


class KubernetesRuntime:
    """`mlrunbook.ports.ServingRuntime` for the models of one namespace, each by the names that the policy gives its objects."""

    def __init__(self, cluster: Cluster, policy: ClusterPolicy) -> None:
        self._cluster, self._policy = cluster, policy

    @understood(CLUSTER)
    def observe(self, model: str) -> ServingState:
        """What the API server says runs. `config` is the ConfigMap's, which the servers follow: switches at once, the threshold from
        the next restart on."""
        objects, cluster = self._policy.of(model), self._cluster
        scaled, restarted = self._deployments(objects)
        pods = cluster.find("pods", labels=objects.pod_selector)
        route = (cluster.get("services", objects.service)["spec"].get("selector") or {}) if objects.service else {}
        replicas, ready = int(scaled["spec"].get("replicas") or 0), reading.ready_replicas(scaled)
        if not replicas and pods:  # others may run them: then the model serves all the same
            serving = len(list(controllers.elsewhere(pods, cluster.find("replicasets"))))
            replicas, ready = serving, ready + serving
        rollout = reading.rollout(restarted, pods)
        policies = cluster.find("networkpolicies")
        isolated = isolation.holds(policies, model, objects)
        return ServingState(
            replicas=replicas,
            ready_replicas=ready,
            route_version=route.get(objects.version_label),
            restart_id=rollout.restart_id if rollout.state == "done" else None,
            version=self._serving_version(objects, pods, route),
            config=config.read(cluster, objects) if ready and objects.config_map is not None else None,
            isolated=isolated,
            autoscaler=autoscaler.state(cluster, objects.scaled_deployment),
            rollout=rollout,
            caveats=(isolation.ENFORCED_BY, *isolation.gaps(policies, pods, model, objects)) if isolated else (),
        )

    @understood(CLUSTER)
    def scale(self, model: str, *, replicas: int) -> None:
        """To 0: the autoscaler is suspended first. From 0: it gets the Deployment back last."""
        self._scale(self._policy.of(model), replicas, dry_run=False)

    @understood(CLUSTER)
    def route(self, model: str, *, version: str | None) -> None:
        self._route(self._policy.of(model), version, dry_run=False)

    @understood(CLUSTER)
    def read_config(self, model: str) -> ServingConfig:
        return config.read(self._cluster, self._policy.of(model))

    @understood(CLUSTER)
    def write_config(self, model: str, changes: Mapping[str, Any], *, expected_revision: str) -> ServingConfig:
        return config.write(self._cluster, self._policy.of(model), changes, expected_revision=expected_revision)

    @understood(CLUSTER)
    def restart(self, model: str, *, restart_id: str) -> None:
        self._restart(self._policy.of(model), restart_id, dry_run=False)

    @understood(CLUSTER)
    def undo_rollout(self, model: str, *, revision: int) -> None:
        self._undo(self._policy.of(model), revision, dry_run=False)

    @understood(CLUSTER)
    def isolate(self, model: str, *, isolated: bool) -> None:
        self._isolate(model, isolated, dry_run=False)

    @understood(CLUSTER)
    def logs(self, model: str, *, tail: int = 500, since: datetime | None = None) -> str:
        """Each pod's model server container, under a line with its name, also of the one that ran before."""
        objects = self._policy.of(model)
        pods = self._cluster.find("pods", labels=objects.pod_selector)
        if not pods:
            raise NotFound(f"no pod of {model} runs in namespace {self._cluster.namespace}: it has no log")
        return evidence.logs(self._cluster, pods, objects.container, tail=tail, since=since)

    @understood(CLUSTER)
    def instances(self, model: str) -> list[Instance]:
        return [reading.instance(pod) for pod in self._cluster.find("pods", labels=self._policy.of(model).pod_selector)]

    @understood(CLUSTER)
    def resources(self, model: str) -> Resources:
        selector = self._policy.of(model).pod_selector
        try:
            measured = self._cluster.usage(selector)
        except NotFound as error:
            raise NotFound("this cluster measures no CPU and memory use: metrics.k8s.io does not answer") from error
        pods = self._cluster.find("pods", labels=selector)
        return Resources(cpu=reading.used_share("cpu", pods, measured), memory=reading.used_share("memory", pods, measured))

    @understood(CLUSTER)
    def revisions(self, model: str) -> list[Revision]:
        deployment = self._cluster.get("deployments", self._policy.of(model).scaled_deployment)
        return reading.revisions(deployment, self._replica_sets(deployment))

    def preserve(self, model: str) -> Mapping[str, bytes]:
        try:
            objects = self._policy.of(model)
        except Refused as error:
            return {f"cluster{MISSING}": str(error).encode()}
        return evidence.collect(self._cluster, objects)

    @understood(CLUSTER)
    def dry_run(self, model: str, actions: Sequence[Action]) -> list[str]:
        """A server-side dry run of each action: admission, validation and permissions as for the real one, and nothing is stored."""
        self._policy.of(model)
        check_own(model, actions)
        try:
            return [said for action in actions for said in self._dry_run(model, action)]
        except Refused as error:
            if _NO_DRY_RUN in str(error):  # that says nothing about the real request
                raise Transient(f"the cluster cannot try it without doing it: {error}") from error
            raise

    def _dry_run(self, model: str, action: Action) -> Sequence[str]:
        objects = self._policy.of(model)
        match action:
            case Scale():
                self._scale(objects, action.replicas, dry_run=True)
            case RouteTraffic():
                self._route(objects, action.version, dry_run=True)
            case Configure():
                config.write(self._cluster, objects, action.settings, expected_revision=None, dry_run=True)
            case Restart():
                self._restart(objects, action.restart_id, dry_run=True)
            case UndoRollout():
                self._undo(objects, action.revision, dry_run=True)
            case Isolate():
                self._isolate(model, action.isolated, dry_run=True)
                return self._caveats(model) if action.isolated else ()
        return ()

    def _scale(self, objects: ClusterObjects, replicas: int, *, dry_run: bool) -> None:
        if isinstance(replicas, bool) or replicas < 0:
            raise Invalid(f"a number of replicas is 0 or more, not {replicas}", field="replicas")
        name = objects.scaled_deployment
        controllers.check("deployment", self._cluster.get("deployments", name), "spec", "replicas")
        if replicas == 0:
            pods = self._cluster.find("pods", labels=objects.pod_selector)
            controllers.check_pods(name, pods, self._cluster.find("replicasets") if pods else ())
            _undisturbed(lambda: autoscaler.suspend(self._cluster, name, dry_run=dry_run))
        _undisturbed(lambda: self._set_replicas(name, replicas, dry_run=dry_run))
        if replicas:
            _undisturbed(lambda: autoscaler.resume(self._cluster, name, dry_run=dry_run))

    def _set_replicas(self, name: str, replicas: int, *, dry_run: bool) -> None:
        deployment = self._cluster.get("deployments", name)
        now = int(deployment["spec"].get("replicas") or 0)
        if now == replicas:
            return
        note = {REPLICAS_BEFORE: None if replicas else str(now)}
        body = {"metadata": {"resourceVersion": _version(deployment), "annotations": note}, "spec": {"replicas": replicas}}
        self._cluster.patch("deployments", name, body, dry_run=dry_run)

    def _route(self, objects: ClusterObjects, version: str | None, *, dry_run: bool) -> None:
        """Refused when no ready pod has that version, or when other pods than the model's would get its traffic."""
        if objects.service is None:
            raise Refused(
                f"policy names no Service in front of deployment/{objects.scaled_deployment}: traffic is not routed by version here; "
                "name it in `service`, or go back by the registry"
            )
        service = self._cluster.get("services", objects.service)
        selector = service["spec"].get("selector") or {}
        if selector.get(objects.version_label) == version:
            return
        self._check_selector(objects, service)
        controllers.check("service", service, "spec", "selector", objects.version_label)
        if version is not None:
            wanted = {**selector, objects.version_label: version}
            pods = [p for p in self._cluster.find("pods", labels=wanted) if reading.is_ready(p)]
            labels = selector_words(wanted)
            if not pods:
                raise Refused(f"no ready pod has {labels}: service/{objects.service} would lead nowhere; start that version first")
            if others := [p["metadata"]["name"] for p in pods if not matches(reading.labels(p), objects.pod_selector)]:
                raise Refused(
                    f"service/{objects.service} would send the model's traffic to pod {others[0]}: it has {labels}, but not the model's "
                    f"{selector_words(objects.pod_selector)}. Add those labels to the Service's selector, then try again"
                )
        self._cluster.patch("services", objects.service, {"spec": {"selector": {objects.version_label: version}}}, dry_run=dry_run)

    def _check_selector(self, objects: ClusterObjects, service: Object) -> None:
        """Refused where the version would be all that it selects by: that takes any pod of the namespace with such a label."""
        name, spec = objects.service, service["spec"]
        if spec.get("type") == "ExternalName":
            raise Refused(
                f"service/{name} is an ExternalName and selects no pod: it leads out of the cluster. Change what it names by hand"
            )
        if any(key != objects.version_label for key in spec.get("selector") or {}):
            return
        patch = json.dumps({"spec": {"selector": dict(objects.pod_selector)}})
        raise Refused(
            f"service/{name} has no selector but for the version: its traffic would go to any pod of the namespace with that label. "
            f"Give it the model's labels first: `kubectl -n {self._cluster.namespace} patch service {name} -p '{patch}'`; where its "
            "endpoints are kept by hand or by another controller, route traffic there"
        )

    def _restart(self, objects: ClusterObjects, restart_id: str, *, dry_run: bool) -> None:
        name = objects.restarted_deployment

        def once() -> None:
            deployment = self._cluster.get("deployments", name)
            if deployment["spec"].get("paused"):
                raise Refused(f"deployment/{name} is paused: nothing is rolled out before somebody runs `kubectl rollout resume`")
            noted = deployment["spec"]["template"].get("metadata", {}).get("annotations") or {}
            if noted.get(reading.RESTART_ID) == restart_id:
                return
            controllers.check_owner("deployment", deployment)  # a GitOps tool leaves annotations alone that its source does not have
            fresh = {reading.RESTART_ID: restart_id, reading.RESTARTED_AT: datetime.now(UTC).isoformat(timespec="seconds")}
            body = {"metadata": {"resourceVersion": _version(deployment)}, "spec": {"template": {"metadata": {"annotations": fresh}}}}
            self._cluster.patch("deployments", name, body, dry_run=dry_run)

        _undisturbed(once)

    def _undo(self, objects: ClusterObjects, revision: int, *, dry_run: bool) -> None:
        name = objects.scaled_deployment

        def once() -> None:
            deployment = self._cluster.get("deployments", name)
            if deployment["spec"].get("paused"):
                raise Refused(f"deployment/{name} is paused: nothing is rolled back before somebody runs `kubectl rollout resume`")
            owned = self._replica_sets(deployment)
            target = next((r for r in reading.revisions(deployment, owned) if r.has(revision)), None)
            if target is None:
                known = ", ".join(str(r.number) for r in reading.revisions(deployment, owned)) or "none"
                raise NotFound(f"deployment/{name} has no revision {revision} any more; its history has {known}")
            template = reading.template_of(next(r for r in owned if r["metadata"]["name"] == target.name))
            if target.current:
                return
            controllers.check("deployment", deployment, "spec", "template")
            body = [
                {"op": "replace", "path": "/metadata/resourceVersion", "value": _version(deployment)},
                {"op": "replace", "path": "/spec/template", "value": template},
            ]
            self._cluster.patch("deployments", name, body, style=JSON, dry_run=dry_run)

        _undisturbed(once)

    def _isolate(self, model: str, isolated: bool, *, dry_run: bool) -> None:
        objects = self._policy.of(model)
        if isolated:
            isolation.isolate(self._cluster, model, objects, dry_run=dry_run)
        else:
            isolation.lift(self._cluster, model, dry_run=dry_run)

    def _caveats(self, model: str) -> tuple[str, ...]:
        cluster, objects = self._cluster, self._policy.of(model)
        policies, pods = cluster.find("networkpolicies"), cluster.find("pods", labels=objects.pod_selector)
        return (isolation.ENFORCED_BY, *isolation.gaps(policies, pods, model, objects))

    def _deployments(self, objects: ClusterObjects) -> tuple[Object, Object]:
        scaled = self._cluster.get("deployments", objects.scaled_deployment)
        if objects.restarted_deployment == objects.scaled_deployment:
            return scaled, scaled
        return scaled, self._cluster.get("deployments", objects.restarted_deployment)

    def _replica_sets(self, deployment: Object) -> list[reading.Object]:
        """Those of this Deployment, by the part of its selector that a list request takes."""
        wanted = deployment["spec"]["selector"].get("matchLabels") or {}
        return reading.owned_by(deployment["metadata"]["uid"], self._cluster.find("replicasets", labels=wanted))

    def _serving_version(self, objects: ClusterObjects, pods: Sequence[Object], route: Mapping[str, str]) -> str | None:
        """The version label of the ready pods behind the Service; None where none is ready, or they are of several versions."""
        ready = (p for p in pods if reading.is_ready(p) and matches(reading.labels(p), route))
        versions = {reading.labels(p).get(objects.version_label) for p in ready}
        return versions.pop() if len(versions) == 1 else None


def _version(thing: Object) -> str:
    return str(thing["metadata"]["resourceVersion"])


def _undisturbed(change: Callable[[], Done]) -> Done:
    """Read and write as one: begun again when somebody else wrote in between. Raises Conflict when that does not end."""
    for _ in range(CONFLICTS - 1):
        try:
            return change()
        except Conflict:
            continue
    return change()
