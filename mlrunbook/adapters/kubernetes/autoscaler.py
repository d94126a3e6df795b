"""Keeping a HorizontalPodAutoscaler from scaling a stopped server up again, and giving it back exactly.

It is pointed at a Deployment that does not exist, and notes in the same write at which one it pointed: at every moment it is either
active, or suspended and knows what to go back to. Its limits, metrics and behaviour are never touched.
"""

from __future__ import annotations

from mlrunbook.adapters.kubernetes.cluster import MERGE, Cluster, Object
from mlrunbook.adapters.kubernetes.reading import notes

TARGET = "mlrunbook/suspended-target"  # annotation: the Deployment it scaled
_NOBODY = ".suspended-by-mlrunbook"


def state(cluster: Cluster, deployment: str) -> str | None:
    """ "active" or "suspended"; None where nothing scales this Deployment."""
    found = _of(cluster, deployment)
    if not found:
        return None
    return "suspended" if all(_suspended(hpa) for hpa in found) else "active"


def suspend(cluster: Cluster, deployment: str, *, dry_run: bool = False) -> None:
    for hpa in _of(cluster, deployment):
        if not _suspended(hpa):
            _point(cluster, hpa, deployment + _NOBODY, note=deployment, dry_run=dry_run)


def resume(cluster: Cluster, deployment: str, *, dry_run: bool = False) -> None:
    for hpa in _of(cluster, deployment):
        if _suspended(hpa):
            _point(cluster, hpa, deployment, note=None, dry_run=dry_run)


def _point(cluster: Cluster, hpa: Object, target: str, *, note: str | None, dry_run: bool) -> None:
    meta = hpa["metadata"]
    body = {
        "metadata": {"resourceVersion": meta["resourceVersion"], "annotations": {TARGET: note}},
        "spec": {"scaleTargetRef": {"name": target}},
    }
    cluster.patch("horizontalpodautoscalers", meta["name"], body, style=MERGE, dry_run=dry_run)


def _of(cluster: Cluster, deployment: str) -> list[Object]:
    return [
        hpa
        for hpa in cluster.find("horizontalpodautoscalers")
        if hpa["spec"]["scaleTargetRef"].get("kind") == "Deployment"
        and deployment in (hpa["spec"]["scaleTargetRef"]["name"], notes(hpa).get(TARGET))
    ]


def _suspended(hpa: Object) -> bool:
    return str(hpa["spec"]["scaleTargetRef"]["name"]).endswith(_NOBODY)
