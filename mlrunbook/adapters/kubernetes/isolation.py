"""Isolation in a cluster: a NetworkPolicy on the model's pods that lets forensics in and nothing else in or out. No pod is touched.

A cluster stores any NetworkPolicy and enforces it only where its network plugin does. Policies add up: one that allows traffic to the
same pods still allows it. Both are told, because "isolated" must not be believed where it does not hold.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from mlrunbook.adapters.kubernetes.cluster import MERGE, Cluster, Object, matches
from mlrunbook.adapters.kubernetes.errors import Conflict
from mlrunbook.adapters.kubernetes.reading import labels
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.policy.cluster import ClusterObjects

_OWNER = {"app.kubernetes.io/managed-by": "mlrunbook"}
ENFORCED_BY = "whether a NetworkPolicy is enforced depends on the cluster's network plugin"


def name_of(model: str) -> str:
    """A valid object name; two models whose names differ in other characters alone do not share one."""
    plain = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:200]
    return f"mlrunbook-isolate-{plain}" + ("" if plain == model else f"-{hashlib.sha256(model.encode()).hexdigest()[:6]}")


def network_policy(model: str, objects: ClusterObjects) -> Object:
    peer: dict[str, Any] = {"podSelector": {"matchLabels": dict(objects.forensics_pods)}}
    if objects.forensics_namespace:
        peer["namespaceSelector"] = {"matchLabels": dict(objects.forensics_namespace)}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name_of(model), "labels": _OWNER},
        "spec": {
            "podSelector": {"matchLabels": dict(objects.pod_selector)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [peer]}],
        },
    }


def isolate(cluster: Cluster, model: str, objects: ClusterObjects, *, dry_run: bool = False) -> None:
    wanted = network_policy(model, objects)
    standing = _standing(cluster, model)
    if standing is None:
        try:
            cluster.create("networkpolicies", wanted, dry_run=dry_run)
            return
        except Conflict:  # created meanwhile, perhaps by ourselves before we died
            standing = _standing(cluster, model)
    if standing is not None and not _same(standing, wanted):
        body = {"spec": wanted["spec"] | {"egress": None}}
        cluster.patch("networkpolicies", name_of(model), body, style=MERGE, dry_run=dry_run)


def lift(cluster: Cluster, model: str, *, dry_run: bool = False) -> None:
    if _standing(cluster, model) is None:
        return
    try:
        cluster.delete("networkpolicies", name_of(model), dry_run=dry_run)
    except NotFound:  # lifted meanwhile
        return


def holds(policies: Sequence[Object], model: str, objects: ClusterObjects) -> bool:
    standing = next((p for p in policies if p["metadata"]["name"] == name_of(model)), None)
    return standing is not None and _same(standing, network_policy(model, objects))


def gaps(policies: Sequence[Object], pods: Sequence[Object], model: str, objects: ClusterObjects) -> list[str]:
    """What keeps the isolation from being one, in words."""
    selected = [p for p in pods if matches(labels(p), objects.pod_selector)]
    if not selected:
        wanted = ",".join(f"{k}={v}" for k, v in objects.pod_selector.items())
        return [f"it selects no pod: none has the labels {wanted}"]
    others = (p for p in policies if p["metadata"]["name"] != name_of(model))
    return [
        f"NetworkPolicy {p['metadata']['name']} still lets traffic through to them"
        for p in others
        if (p["spec"].get("ingress") or p["spec"].get("egress")) and any(_selects(p["spec"].get("podSelector") or {}, s) for s in selected)
    ]


def _selects(selector: Object, pod: Object) -> bool:
    """A label selector, with matchExpressions ("Labels and Selectors")."""
    own = labels(pod)
    for rule in selector.get("matchExpressions") or ():
        key, values = rule["key"], rule.get("values") or ()
        met: bool = {
            "In": own.get(key) in values,
            "NotIn": own.get(key) not in values,
            "Exists": key in own,
            "DoesNotExist": key not in own,
        }[rule["operator"]]
        if not met:
            return False
    return matches(own, selector.get("matchLabels") or {})


def _standing(cluster: Cluster, model: str) -> Object | None:
    return next((p for p in cluster.find("networkpolicies") if p["metadata"]["name"] == name_of(model)), None)


def _same(standing: Object, wanted: Object) -> bool:
    """The server leaves empty lists out."""
    mine = {key: value for key, value in standing["spec"].items() if value}
    return bool(mine == wanted["spec"])
