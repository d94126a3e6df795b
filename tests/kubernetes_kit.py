"""A model's objects in a namespace of a cluster, real or fake, made and looked after with the official client as an administrator."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlrunbook.adapters.kubernetes.cluster import Cluster, login
from mlrunbook.adapters.kubernetes.runtime import KubernetesRuntime
from mlrunbook.domain.policy.cluster import ClusterObjects, ClusterPolicy

MODEL = "predictive_maintenance"
NAMES = ClusterObjects(scaled_deployment="model-server")  # one Deployment for both, as in most clusters
CONFIG = {"revision": 1, "threshold": 0.5, "human_approval": False, "auto_work_orders": True, "auto_scheduling": True, "note": "ours"}
IMAGE = os.environ.get("MLRUNBOOK_TEST_IMAGE", "registry.k8s.io/pause:3.9")


def pod_template(version: str, image: str = IMAGE) -> dict[str, Any]:
    env = [{"name": "DB_PASSWORD", "value": "hush-hush"}, {"name": "MODE", "value": "plain"}]
    container = {"name": "model-server", "image": image, "env": env, "resources": {"limits": {"cpu": "1", "memory": "256Mi"}}}
    return {"metadata": {"labels": {"app": "model-server", "version": version}}, "spec": {"containers": [container]}}


@dataclass
class Kit:
    """`config_file`: a kubeconfig of an administrator; `as_file`: of whoever the runtime is."""

    config_file: Path
    as_file: Path | None = None
    names: ClusterObjects = NAMES
    namespace: str = field(default_factory=lambda: f"mlrunbook-test-{uuid.uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        from kubernetes import client, config

        configuration = client.Configuration()
        config.load_kube_config(str(self.config_file), client_configuration=configuration)
        api = client.ApiClient(configuration)
        self.core, self.apps = client.CoreV1Api(api), client.AppsV1Api(api)
        self.scaling, self.networking, self.rbac = (
            client.AutoscalingV1Api(api),
            client.NetworkingV1Api(api),
            client.RbacAuthorizationV1Api(api),
        )

    def runtime(self, *, sleep: Any = None) -> KubernetesRuntime:
        """A new one, as after a restart of the process."""
        return KubernetesRuntime(self.cluster(sleep=sleep), ClusterPolicy(MODEL, self.names))

    def cluster(self, *, sleep: Any = None) -> Cluster:
        return Cluster(
            lambda: login(None, self.namespace, config_file=str(self.as_file or self.config_file)),
            timeout_s=10,
            **({"sleep": sleep} if sleep else {}),
        )

    def seed(self, *, replicas: int = 2, autoscaled: bool = False) -> None:
        """The namespace, two versions behind one Service, the config, and an autoscaler if asked for."""
        ns = self.namespace
        self.core.create_namespace({"metadata": {"name": ns}})
        for name, version in ((self.names.scaled_deployment, "v2.0.0"), ("model-server-former", "v1.5.0")):
            selector = {"matchLabels": {"app": "model-server", "version": version}}
            spec = {"replicas": replicas, "selector": selector, "template": pod_template(version), "progressDeadlineSeconds": 600}
            self.apps.create_namespaced_deployment(ns, {"metadata": {"name": name}, "spec": spec})
        ports = [{"port": 8080}]
        self.core.create_namespaced_service(
            ns, {"metadata": {"name": "model-service"}, "spec": {"selector": {"app": "model-server"}, "ports": ports}}
        )
        data = {"model-config.json": json.dumps(CONFIG), "other": "stays"}
        self.core.create_namespaced_config_map(ns, {"metadata": {"name": "model-config"}, "data": data})
        if autoscaled:
            target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.names.scaled_deployment}
            spec = {"minReplicas": 2, "maxReplicas": 9, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 70}
            self.scaling.create_namespaced_horizontal_pod_autoscaler(ns, {"metadata": {"name": "by-load"}, "spec": spec})

    def has_kubelet(self) -> bool:
        nodes = self.core.list_node().items
        return any(c.type == "Ready" and c.status == "True" for n in nodes for c in n.status.conditions or ())

    def start_pods(self) -> None:
        """What a kubelet would: say that every pod runs and is ready. A real one needs no help."""
        if self.has_kubelet():
            return
        running = {"name": "model-server", "image": IMAGE, "imageID": "", "ready": True, "restartCount": 0, "state": {"running": {}}}
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [running]}
        for pod in self.core.list_namespaced_pod(self.namespace).items:
            if pod.status.phase != "Running":
                self.core.patch_namespaced_pod_status(pod.metadata.name, self.namespace, {"status": status})

    def deployment(self) -> Any:
        return self.apps.read_namespaced_deployment(self.names.scaled_deployment, self.namespace)

    def autoscaler(self) -> Any:
        return self.scaling.read_namespaced_horizontal_pod_autoscaler("by-load", self.namespace)

    def config_map(self) -> dict[str, str]:
        return dict(self.core.read_namespaced_config_map("model-config", self.namespace).data)

    def specifications(self) -> bytes:
        """What somebody asked for, of every object that the runtime may change."""
        lists = (
            self.apps.list_namespaced_deployment,
            self.core.list_namespaced_service,
            self.core.list_namespaced_config_map,
            self.scaling.list_namespaced_horizontal_pod_autoscaler,
            self.networking.list_namespaced_network_policy,
        )
        found = [thing for each in lists for thing in each(self.namespace).items if thing.metadata.name != "kube-root-ca.crt"]
        return json.dumps([str(getattr(thing, "spec", None) or thing.data) for thing in found]).encode()

    def allow(self, user: str, needed: Any) -> None:
        """A Role with exactly these verbs, bound to `user`: the fake's RBAC is set on it directly."""
        rules = [{"apiGroups": [a.api_group], "resources": [a.rule_resource], "verbs": [a.verb]} for a in needed]
        self.rbac.create_namespaced_role(self.namespace, {"metadata": {"name": "runtime"}, "rules": rules})
        self.rbac.create_namespaced_role_binding(
            self.namespace,
            {
                "metadata": {"name": "runtime"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "runtime"},
                "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
            },
        )

    def remove(self) -> None:
        """Asked for, not waited for."""
        self.core.delete_namespace(self.namespace)
