"""What a cluster's objects say, from their JSON: pure, no call. Words and fields are those of the Kubernetes API, 1.20 to today."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from mlrunbook.domain.observed import Instance, Revision, Rollout

Object = Mapping[str, Any]
RESTART_ID = "mlrunbook/restart-id"  # on the pod template
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
_REVISION = "deployment.kubernetes.io/revision"
_FORMER = "deployment.kubernetes.io/revision-history"
_CAUSE = "kubernetes.io/change-cause"
_HASH = "pod-template-hash"
# The suffixes of a quantity ("Quantity" in the Kubernetes API reference).
_SUFFIX = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_QUANTITY = re.compile(r"[+-]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d{1,2})?")
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def notes(thing: Object) -> Mapping[str, str]:
    return thing["metadata"].get("annotations") or {}


def labels(thing: Object) -> Mapping[str, str]:
    return thing["metadata"].get("labels") or {}


def ready_replicas(deployment: Object) -> int:
    """0 while the controller has not yet seen the newest specification, unless fewer are asked for: those may still run."""
    status = deployment.get("status") or {}
    ready = int(status.get("readyReplicas") or 0)
    seen = int(status.get("observedGeneration") or 0) >= int(deployment["metadata"].get("generation") or 0)
    return ready if seen or not deployment["spec"].get("replicas") else 0


def rollout(deployment: Object, pods: Sequence[Object] = ()) -> Rollout:
    """As `kubectl rollout status` judges it; the pods tell why it failed."""
    spec, status, meta = deployment["spec"], deployment.get("status") or {}, deployment["metadata"]
    restart_id = (spec["template"].get("metadata", {}).get("annotations") or {}).get(RESTART_ID)
    wanted = spec.get("replicas", 1)
    updated, total, available = (int(status.get(key) or 0) for key in ("updatedReplicas", "replicas", "availableReplicas"))
    words = f"{updated} of {wanted} pods of {meta['name']} are new, {available} available, {total - updated} old ones left"
    if int(status.get("observedGeneration") or 0) < int(meta.get("generation") or 0):
        return Rollout(restart_id, "progressing", f"the rollout of {meta['name']} has not begun", meta["name"])
    progressing: Object = next((c for c in status.get("conditions") or () if c["type"] == "Progressing"), {})
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        seen = (instance(pod) for pod in pods)
        reasons = "; ".join(f"{i.name}: {i.problem}" for i in seen if i.problem) or "its pods give no reason"
        said = f"the rollout of {meta['name']} made no progress in time ({words}): {reasons}"
        return Rollout(restart_id, "failed", said, meta["name"])
    done = updated == total == available == wanted
    return Rollout(restart_id, "done" if done else "progressing", words, meta["name"])


def instance(pod: Object) -> Instance:
    """A pod, and why it does not serve."""
    status = pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    restarts = sum(int(c.get("restartCount") or 0) for c in containers)
    owner = controller_of(pod)
    return Instance(
        pod["metadata"]["name"], is_ready(pod), restarts, _problem(pod, status, containers), str(owner["name"]) if owner else None
    )


def is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return "deletionTimestamp" not in pod["metadata"] and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _problem(pod: Object, status: Object, containers: Sequence[Object]) -> str | None:
    """The most telling reason: what a container waits for or died of, then the pod's own, then its conditions."""
    if "deletionTimestamp" in pod["metadata"]:
        return "terminating"
    died = [_ended(c["name"], end) for c in containers if (end := (c.get("lastState") or {}).get("terminated") or _now_ended(c))]
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in ("ContainerCreating", "PodInitializing"):
            return _words(f"{container['name']} {waiting['reason']}", waiting.get("message"), *died)
    if status.get("phase") == "Failed" or status.get("reason"):
        return _words(str(status.get("reason") or "Failed"), status.get("message"), *died)
    if is_ready(pod):
        return _words(*died) if died else None
    for condition in status.get("conditions") or ():
        if condition["status"] == "False" and condition["type"] in ("PodScheduled", "Ready", "ContainersReady") and condition.get("reason"):
            return _words(f"not ready: {condition['reason']}", condition.get("message"), *died)
    return _words(f"not ready, phase {status.get('phase', 'Unknown')}", *died)


def _now_ended(container: Object) -> Object | None:
    ended: Object | None = (container.get("state") or {}).get("terminated")
    return ended if ended and ended.get("exitCode") else None


def _ended(name: str, end: Object) -> str:
    return f"{name} ended before: {end.get('reason') or 'Error'}, exit code {end.get('exitCode')}"


def _words(*parts: str | None) -> str:
    return ", ".join(part.strip() for part in parts if part)


def revisions(deployment: Object, replica_sets: Sequence[Object]) -> list[Revision]:
    """The rollout history, newest first. A template that was put back is the same ReplicaSet under a new number."""
    uid, current = deployment["metadata"]["uid"], notes(deployment).get(_REVISION)
    found = []
    for owned in owned_by(uid, replica_sets):
        noted, template = notes(owned), owned["spec"]["template"]
        number = noted.get(_REVISION, "")
        if not number.isdecimal():  # not the controller's
            continue
        found.append(
            Revision(
                number=int(number),
                former=tuple(int(n) for n in noted.get(_FORMER, "").split(",") if n.isdecimal()),
                name=owned["metadata"]["name"],
                images=tuple(c["image"] for c in template["spec"]["containers"]),
                version=(template["metadata"].get("labels") or {}).get("version"),
                at=moment(owned["metadata"]["creationTimestamp"]),
                cause=noted.get(_CAUSE),
                current=number == current,
                ready=int((owned.get("status") or {}).get("readyReplicas") or 0),
                spec=_digest(template_of(owned)),
                deployment=deployment["metadata"]["name"],
            )
        )
    return sorted(found, key=lambda r: r.number, reverse=True)


def controller_of(thing: Object) -> Object | None:
    """The owner that reconciles it."""
    return next((o for o in thing["metadata"].get("ownerReferences") or () if o.get("controller")), None)


def owned_by(uid: str, things: Sequence[Object]) -> list[Object]:
    return [thing for thing in things if (controller_of(thing) or {}).get("uid") == uid]


def template_of(replica_set: Object) -> dict[str, Any]:
    """Its pod template as a Deployment has it: without the hash that the controller adds."""
    template = dict(replica_set["spec"]["template"])
    meta = dict(template.get("metadata") or {})
    meta["labels"] = {key: value for key, value in (meta.get("labels") or {}).items() if key != _HASH}
    return template | {"metadata": meta}


def _digest(template: dict[str, Any]) -> str:
    """Of a pod template without the marks of a restart."""
    meta = template["metadata"]
    kept = {key: value for key, value in (meta.get("annotations") or {}).items() if key not in (RESTART_ID, RESTARTED_AT)}
    bare = template | {"metadata": {"labels": meta["labels"], "annotations": kept}}
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()[:12]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def quantity(text: str | int | float) -> float:
    """A Kubernetes quantity as a number: "250m" is 0.25, "1Gi" 1073741824. ValueError for what is none."""
    text = str(text)
    if not _QUANTITY.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no quantity")
    if text[-2:] in _BINARY:
        return float(Decimal(text[:-2]) * 2 ** _BINARY[text[-2:]])
    if text[-1:] in _SUFFIX:
        return float(Decimal(text[:-1]).scaleb(_SUFFIX[text[-1]]))
    return float(Decimal(text))


def used_share(resource: str, pods: Sequence[Object], measured: Sequence[Object]) -> float | None:
    """The fullest container: what it uses of its limit; None where no container has both a limit and a measurement. A limit of 0 is none:
    Kubernetes takes it, and does not enforce it."""
    limits = {
        (pod["metadata"]["name"], c["name"]): quantity(((c.get("resources") or {}).get("limits") or {}).get(resource) or 0)
        for pod in pods
        for c in pod["spec"]["containers"]
    }
    shares = [
        quantity(container["usage"][resource]) / limit
        for pod in measured
        for container in pod["containers"]
        if resource in container["usage"] and (limit := limits.get((pod["metadata"]["name"], container["name"]), 0)) > 0
    ]
    return max(shares, default=None)
