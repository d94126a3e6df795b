"""What the cluster runtime may need to do in its namespace: every verb it uses, and none that it does not.

The Role of deployments/kubernetes, the permission checks of `mlrunbook doctor` and the message of a 403 all come from this list.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Access:
    """One verb on one resource, in the words of a Role rule. `api_group` "" is the core group."""

    api_group: str
    resource: str
    verb: str
    subresource: str = ""
    why: str = ""

    @property
    def rule_resource(self) -> str:
        """As a Role names it: `pods/log`."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    @property
    def rule(self) -> str:
        """The rule a Role must have, on one line of YAML."""
        return f'apiGroups: ["{self.api_group}"], resources: ["{self.rule_resource}"], verbs: ["{self.verb}"]'


LOOKED_AT: tuple[Access, ...] = (  # by `mlrunbook connect`, with the login of whoever runs it
    Access("apps", "deployments", "list", why="which model server is whose"),
    Access("", "services", "list", why="what routes to it"),
    Access("", "configmaps", "list", why="which one holds its threshold and switches"),
)
NEEDED: tuple[Access, ...] = (
    Access("apps", "deployments", "get", why="replicas, rollout state, the pod template to put back"),
    Access("apps", "deployments", "patch", why="scale, rollout restart, rollout undo"),
    Access("apps", "replicasets", "list", why="rollout history: revisions, images, change causes"),
    Access("autoscaling", "horizontalpodautoscalers", "list", why="find what would scale a stopped server up again"),
    Access("autoscaling", "horizontalpodautoscalers", "patch", why="suspend it while serving is stopped, and resume it"),
    Access("keda.sh", "scaledobjects", "list", why="find what makes KEDA scale a stopped server up again"),
    Access("keda.sh", "scaledobjects", "patch", why="pause it while serving is stopped, and resume it"),
    Access("", "services", "get", why="where traffic is routed"),
    Access("", "services", "patch", why="route traffic to a previous version"),
    Access("", "configmaps", "get", why="threshold and switches"),
    Access("", "configmaps", "patch", why="set the threshold and switches"),
    Access("", "pods", "list", why="which servers are ready, and why the others are not"),
    Access("", "pods", "get", "log", why="logs of the model server, current and crashed"),
    Access("", "events", "list", why="what the cluster said about the pods"),
    Access("networking.k8s.io", "networkpolicies", "list", why="whether the model is isolated, and what else lets traffic through"),
    Access("networking.k8s.io", "networkpolicies", "create", why="isolate"),
    Access("networking.k8s.io", "networkpolicies", "patch", why="restore an isolation that somebody has edited"),
    Access("networking.k8s.io", "networkpolicies", "delete", why="lift an isolation"),
    Access("metrics.k8s.io", "pods", "list", why="CPU and memory use, where the cluster measures it"),
)
