"""What of the cluster is evidence: logs of every container, pods, specifications, rollout history, events, config. Reads alone.

Values that look like a secret are masked: environment values by their name, and what `kubectl apply` copied into annotations. References
to Secrets stay, they hold no value; no Secret is ever read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from mlrunbook.adapters.kubernetes.cluster import Cluster, Object
from mlrunbook.base.concurrent_reads import read_all
from mlrunbook.domain.errors import Refused, RunbookError
from mlrunbook.domain.policy.cluster import ClusterObjects
from mlrunbook.ports import MISSING

LOG_LINES = 20_000  # of each container
WITHIN_S = 25.0  # for what is listed, and for the logs: both together within what a bundle of evidence may take
MASKED = "(masked)"
_SECRET = re.compile(r"(?i)secret|token|passw|pwd|api_?key|access_?key|_key$|credential|auth|dsn|connection|private")
_OPTION = re.compile(r"(?i)(--?[\w-]*(?:secret|token|passw|credential|api-?key)[\w-]*)(=.*)?$")
_IN_URL = re.compile(r"(://[^:/@\s]*:)[^@\s]+@")
_COPY = "kubectl.kubernetes.io/last-applied-configuration"


def logs(cluster: Cluster, pods: Sequence[Object], container: str, *, tail: int, since: datetime | None = None) -> str:
    """The newest lines of each pod's `container` (of all its containers where none has that name), each under a line that names it."""
    parts = []
    # The API takes an age of at least one second, by the node's clock.
    since_s = None if since is None else max(math.ceil((datetime.now(UTC) - since).total_seconds()), 1)
    for pod in pods:
        name = pod["metadata"]["name"]
        present = [c["name"] for c in pod["spec"]["containers"]]
        for chosen in [container] if container in present else present:
            if _restarts(pod, chosen):
                parts.append(_log(cluster, name, chosen, tail, since_s, previous=True))
            parts.append(_log(cluster, name, chosen, tail, since_s, previous=False))
    return "".join(parts)


def _log(cluster: Cluster, pod: str, container: str, tail: int, since_s: int | None, *, previous: bool) -> str:
    """A container that has not started has no log: the server's words stand for it."""
    try:
        text = cluster.log(pod, container, previous=previous, tail=tail, since_s=since_s)
    except Refused as error:
        if "Role lacks" in str(error):
            raise
        text = f"(no log: {error})"
    title = f"==> {pod} {container}{' before its last restart' if previous else ''} <==\n"
    return title + text + ("" if not text or text.endswith("\n") else "\n")


def collect(cluster: Cluster, objects: ClusterObjects) -> dict[str, bytes]:
    """Name -> content. What cannot be read is named `<name>.missing` and holds the reason."""
    sources: dict[str, Callable[[], Any]] = {
        "cluster/pods.json": lambda: cluster.find("pods", labels=objects.pod_selector),
        "cluster/replicasets.json": lambda: cluster.find("replicasets"),
        "cluster/events.json": lambda: cluster.find("events"),
        "cluster/networkpolicies.json": lambda: cluster.find("networkpolicies"),
        "cluster/horizontalpodautoscalers.json": lambda: cluster.find("horizontalpodautoscalers"),
    }
    if objects.service is not None:
        sources["cluster/service.json"] = partial(cluster.get, "services", objects.service)
    if objects.config_map is not None:
        sources["cluster/configmap.json"] = partial(cluster.get, "configmaps", objects.config_map)
    for deployment in sorted({objects.scaled_deployment, objects.restarted_deployment}):
        sources[f"cluster/deployment-{deployment}.json"] = partial(cluster.get, "deployments", deployment)
    read = read_all(sources, within_s=WITHIN_S)
    pods = read["cluster/pods.json"]
    logs: dict[str, Callable[[], Any]] = {}
    for pod in () if isinstance(pods, RunbookError) else pods:
        name = pod["metadata"]["name"]
        for container in [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]:
            each = container["name"]
            logs[f"logs/{name}/{each}.log"] = partial(cluster.log, name, each, tail=LOG_LINES)
            if _restarts(pod, each):
                logs[f"logs/{name}/{each}.previous.log"] = partial(cluster.log, name, each, previous=True, tail=LOG_LINES)
    return dict(_kept(name, value) for name, value in (read | read_all(logs, within_s=WITHIN_S)).items())


def _kept(name: str, value: Any) -> tuple[str, bytes]:
    if isinstance(value, RunbookError):
        return name + MISSING, str(value).encode()
    return name, value.encode() if isinstance(value, str) else json.dumps(_masked(value), indent=1, sort_keys=True).encode()


def _restarts(pod: Object, container: str) -> int:
    status = pod.get("status") or {}
    each = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return next((int(c.get("restartCount") or 0) for c in each if c["name"] == container), 0)


def _hidden(key: str, *, within: str) -> bool:
    """The copy that `kubectl apply` keeps holds everything in clear; ConfigMap keys are named by people."""
    return key == _COPY or (within in ("data", "annotations") and bool(_SECRET.search(key)))


def _masked(value: Any, name: str = "") -> Any:
    """A copy without secret values: of the environment, of options on a command line, of a ConfigMap and JSON in it, of URLs."""
    if isinstance(value, dict):
        if isinstance(value.get("name"), str) and "value" in value and _SECRET.search(value["name"]):
            return value | {"value": MASKED}
        return {key: MASKED if _hidden(key, within=name) else _masked(each, key) for key, each in value.items()}
    if isinstance(value, list):
        options = [None, *(_OPTION.fullmatch(each) if isinstance(each, str) else None for each in value)]
        return [
            MASKED if option and not option[2] and isinstance(each, str) else _masked(each, name)
            for option, each in zip(options, value, strict=False)
        ]
    if isinstance(value, str):
        if (option := _OPTION.fullmatch(value)) and option[2]:
            return f"{option[1]}={MASKED}"
        try:
            inner = json.loads(value) if value.lstrip().startswith("{") else None
        except ValueError:
            inner = None
        if inner is not None:
            return json.dumps(_masked(inner, "data"))
        return _IN_URL.sub(r"\1(masked)@", value)
    return value
