"""One node of a cluster, played by this machine: for `mlrunbook demo --runtime kubernetes`.

The objects of a model are created in a namespace of their own, and the model server that `mlrunbook up` keeps here obeys them: replicas,
rollouts, the Service's version, the ConfigMap, network policies. What the kubelet and the network plugin of a real node would do, this
does for the one pod, so that no image has to be built or pulled. Needs the right to create a node: for test clusters (kind, k3d, envtest).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import httpx

from mlrunbook.adapters.local.serving_state import DEFAULT_MODEL, desired_state
from mlrunbook.base import json_file
from mlrunbook.base.settings import Settings
from mlrunbook.domain.errors import Refused, Transient
from mlrunbook.domain.policy.cluster import ClusterObjects

log = logging.getLogger(__name__)
# The runbook names two Deployments; in a small cluster they are one.
OBJECTS = ClusterObjects(scaled_deployment="model-server")
POLICY = f"cluster:\n  default_model: {DEFAULT_MODEL}\n  default:\n    scaled_deployment: model-server\n"
LOOK_EVERY_S = 0.25
HEARTBEAT_S = 10.0  # a node that is silent for 40 s counts as lost, and its pods are evicted
STARTS_WITHIN_S = 60.0
IMAGE = "mlrunbook-demo:runs-on-this-machine"  # never pulled: nothing but this node starts the pod
MERGE = "application/merge-patch+json"
Object = dict[str, Any]


class ClusterNode:
    """A context manager: creates node, namespace and objects, follows them in a thread, and removes them."""

    def __init__(self, config: Settings, namespace: str) -> None:
        self._config, self.namespace = config, namespace
        token = config.platform_token
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        self._http = httpx.Client(base_url=config.model_server_url, headers=headers, timeout=2.0, trust_env=False)
        self._stop, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="cluster-node", daemon=True)
        self._seen: dict[str, int] = {}  # pods in the order in which they came
        self._first: str | None = None  # the pod that the running server was taken over for
        self._agreed: Object = {}  # the config as file and ConfigMap both had it last
        self._beat = datetime.min.replace(tzinfo=UTC)

    def __enter__(self) -> ClusterNode:
        try:
            self._connect()
            self._create()
            self._thread.start()
            if not self._ready.wait(STARTS_WITHIN_S):
                raise Transient(f"no pod of {OBJECTS.restarted_deployment} got ready in namespace {self.namespace} within a minute")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._remove()

    def _connect(self) -> None:
        from kubernetes import client, config
        from kubernetes.dynamic import DynamicClient

        connect: Any = config.new_client_from_config  # without types
        talk: Any = DynamicClient
        try:
            cluster = talk(connect(config_file=os.environ.get("KUBECONFIG"), context=self._config.kube_context))
        except Exception as error:  # whatever it is: nothing was created yet, and the reason is in the words
            raise Refused(f"the kubeconfig's cluster cannot be reached: {error}; `kubectl get nodes` must work first") from error
        self._delete = client.V1DeleteOptions(grace_period_seconds=0)
        kinds = {"Node": "v1", "Namespace": "v1", "Pod": "v1", "Service": "v1", "ConfigMap": "v1"}
        kinds |= {"Deployment": "apps/v1", "NetworkPolicy": "networking.k8s.io/v1"}
        self._of = {kind: cluster.resources.get(api_version=version, kind=kind) for kind, version in kinds.items()}

    def _create(self) -> None:
        taint = {"key": "mlrunbook.io/demo", "value": "true", "effect": "NoSchedule"}
        self._put("Node", {"metadata": {"name": self.namespace}, "spec": {"taints": [taint], "unschedulable": True}})
        self._heartbeat()
        self._put("Namespace", {"metadata": {"name": self.namespace}})
        self._agreed = self._stored()
        data = {OBJECTS.config_key: json.dumps(self._agreed | {"revision": 1}, indent=2, sort_keys=True)}
        self._put("ConfigMap", {"metadata": {"name": OBJECTS.config_map}, "data": data})
        labels = dict(OBJECTS.pod_selector)
        port = httpx.URL(self._config.model_server_url).port
        self._put(
            "Service",
            {"metadata": {"name": OBJECTS.service}, "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": port}]}},
        )
        pod = {
            "nodeName": self.namespace,
            "automountServiceAccountToken": False,
            "containers": [{"name": OBJECTS.container, "image": IMAGE, "imagePullPolicy": "Never"}],
        }
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
        self._put("Deployment", {"metadata": {"name": OBJECTS.restarted_deployment, "labels": labels}, "spec": spec})

    def _remove(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        for kind in ("Namespace", "Node"):  # the namespace goes on its own: nobody waits for it
            with contextlib.suppress(Exception):
                self._of[kind].delete(name=self.namespace)
        with contextlib.suppress(Exception):  # nothing ends a pod on a node that is gone
            for pod in self._list("Pod"):
                self._of["Pod"].delete(name=pod["metadata"]["name"], namespace=self.namespace, body=self._delete)

    def _run(self) -> None:
        complaint = ""
        while not self._stop.wait(LOOK_EVERY_S):
            try:
                self._follow(datetime.now(UTC))
                complaint = ""
            except Exception as error:  # the cluster or the server may be away for a moment; the node goes on
                if complaint != repr(error):
                    complaint = repr(error)
                    log.warning("the node of %s could not follow its cluster: %s", self.namespace, error)

    def _follow(self, now: datetime) -> None:
        if (now - self._beat).total_seconds() >= HEARTBEAT_S:
            self._heartbeat()
        pods = self._list("Pod")
        for pod in pods:
            if pod["metadata"].get("deletionTimestamp"):
                self._of["Pod"].delete(name=pod["metadata"]["name"], namespace=self.namespace, body=self._delete)
        living = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        for pod in living:  # creation times are whole seconds
            self._seen.setdefault(pod["metadata"]["name"], len(self._seen))
        newest = max(living, key=lambda p: self._seen[p["metadata"]["name"]], default=None)
        self._configure()
        self._obey(newest)
        if newest:
            self._report(newest, self._health(), now)

    def _obey(self, pod: Object | None) -> None:
        """What the cluster wants, as the desired state that the supervisor reconciles."""
        wanted: Object = {"replicas": 1 if pod else 0}
        name = pod["metadata"]["name"] if pod else None
        self._first = self._first or name
        if name and name != self._first:
            wanted["restart_id"] = name
        selects = self._of["Service"].get(name=OBJECTS.service, namespace=self.namespace).to_dict()["spec"].get("selector") or {}
        wanted["route_version"] = selects.get(OBJECTS.version_label)
        wanted["isolated"] = any(self._cuts_off(policy) for policy in self._list("NetworkPolicy"))
        path = self._config.serving_state_file
        current = desired_state(path)
        if any(current.get(key) != value for key, value in wanted.items()):
            json_file.patch(path, wanted)

    def _cuts_off(self, policy: Object) -> bool:
        chosen = (policy["spec"].get("podSelector") or {}).get("matchLabels") or {}
        return all(OBJECTS.pod_selector.get(key) == value for key, value in chosen.items())

    def _configure(self) -> None:
        """File and ConfigMap are the same config: whichever somebody changed is copied to the other."""
        found = self._of["ConfigMap"].get(name=OBJECTS.config_map, namespace=self.namespace).to_dict()
        asked = {k: v for k, v in json.loads(found["data"][OBJECTS.config_key]).items() if k != "revision"}
        if asked != self._agreed:
            json_file.patch(self._config.serving_config_file, asked)
            self._agreed = asked
        elif (here := self._stored()) != self._agreed:
            data = {OBJECTS.config_key: json.dumps(here | {"revision": 1}, indent=2, sort_keys=True)}
            self._patch("ConfigMap", str(OBJECTS.config_map), {"data": data})
            self._agreed = here

    def _stored(self) -> Object:
        return {k: v for k, v in json_file.read(self._config.serving_config_file).items() if k != "revision"}

    def _health(self) -> Object:
        try:
            return dict(self._http.get("/health").json())
        except (httpx.HTTPError, ValueError):
            return {}

    def _report(self, pod: Object, health: Object, now: datetime) -> None:
        """The pod's status, as a kubelet reports it; and the version that it serves, as a release pipeline labels it."""
        name = pod["metadata"]["name"]
        ready = health.get("status") == "ok" and (name == self._first or health.get("restartId") == name)
        serves = health.get("version")
        if ready and serves and (pod["metadata"].get("labels") or {}).get(OBJECTS.version_label) != serves:
            self._patch("Pod", name, {"metadata": {"labels": {OBJECTS.version_label: serves}}})
        known = {c["type"]: c["status"] for c in (pod.get("status") or {}).get("conditions") or ()}
        if known.get("Ready") == str(ready):
            return
        at = _moment(now)
        conditions = [
            {"type": kind, "status": str(ready if kind in ("Ready", "ContainersReady") else True), "lastTransitionTime": at}
            for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
        ]
        container = {
            "name": OBJECTS.container,
            "image": IMAGE,
            "imageID": "",
            "ready": ready,
            "restartCount": 0,
            "state": {"running": {"startedAt": at}},
        }
        status = {"phase": "Running", "startTime": at, "conditions": conditions, "containerStatuses": [container]}
        body = {"metadata": {"name": name}, "status": status}
        self._of["Pod"].status.patch(name=name, namespace=self.namespace, body=body, content_type=MERGE)
        if ready:
            self._ready.set()

    def _heartbeat(self) -> None:
        now = datetime.now(UTC)
        condition = {"type": "Ready", "status": "True", "reason": "Demo", "lastHeartbeatTime": _moment(now)}
        body = {"metadata": {"name": self.namespace}, "status": {"conditions": [condition]}}
        self._of["Node"].status.patch(name=self.namespace, body=body, content_type=MERGE)
        self._beat = now

    def _put(self, kind: str, body: Object) -> None:
        within = {} if kind in ("Node", "Namespace") else {"namespace": self.namespace}
        self._of[kind].create(body={"apiVersion": self._of[kind].group_version, "kind": kind} | body, **within)

    def _patch(self, kind: str, name: str, body: Object) -> None:
        self._of[kind].patch(name=name, namespace=self.namespace, body=body, content_type=MERGE)

    def _list(self, kind: str) -> list[Object]:
        return list(self._of[kind].get(namespace=self.namespace).to_dict()["items"])


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
