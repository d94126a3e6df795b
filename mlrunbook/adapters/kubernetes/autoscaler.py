"""Keeping what scales a Deployment from scaling a stopped server up again, and giving it back exactly.

A HorizontalPodAutoscaler is pointed at a Deployment that does not exist, and notes in the same write at which one it pointed: at every
moment it is either active, or suspended and knows what to go back to. Its limits, metrics and behaviour are never touched. KEDA, which
puts its own HorizontalPodAutoscaler back, is paused at its ScaledObject, which notes in the same write what was there before.
"""

from __future__ import annotations

from mlrunbook.adapters.kubernetes import controllers
from mlrunbook.adapters.kubernetes.access import NEEDED
from mlrunbook.adapters.kubernetes.cluster import MERGE, Cluster, Object
from mlrunbook.adapters.kubernetes.reading import controller_of, notes
from mlrunbook.domain.errors import NotFound, Refused

TARGET = "mlrunbook/suspended-target"  # annotation: the Deployment it scaled
PAUSED = "autoscaling.keda.sh/paused-replicas"
PAUSED_BEFORE = "mlrunbook/paused-replicas-before"  # annotation of a ScaledObject that we paused: PAUSED before, "" for none
_NOBODY = ".suspended-by-mlrunbook"


def state(cluster: Cluster, deployment: str) -> str | None:
    """ "active" or "suspended"; None where nothing scales this Deployment."""
    scaled = _scaled_objects(cluster, deployment)
    own = [hpa for hpa in _of(cluster, deployment) if _keda(hpa) not in _names(scaled)]
    if not own and not scaled:
        return None
    return "suspended" if all(map(_suspended, own)) and all(map(_paused, scaled)) else "active"


def suspend(cluster: Cluster, deployment: str, *, dry_run: bool = False) -> None:
    """Raises Refused where something else would make it scale again."""
    scaled = _scaled_objects(cluster, deployment)
    own = [hpa for hpa in _of(cluster, deployment) if _keda(hpa) not in _names(scaled) and not _suspended(hpa)]
    running = [one for one in scaled if not _paused(one)]
    for hpa in own:
        _check(hpa)
    for one in running:
        controllers.check("scaledobject", one, "metadata", "annotations", PAUSED)
    for hpa in own:
        _point(cluster, hpa, deployment + _NOBODY, note=deployment, dry_run=dry_run)
    for one in running:
        _pause(cluster, one, {PAUSED: "0", PAUSED_BEFORE: notes(one).get(PAUSED, "")}, dry_run=dry_run)


def resume(cluster: Cluster, deployment: str, *, dry_run: bool = False) -> None:
    for hpa in _of(cluster, deployment):
        if _suspended(hpa):
            _point(cluster, hpa, deployment, note=None, dry_run=dry_run)
    for one in _scaled_objects(cluster, deployment):
        if (before := notes(one).get(PAUSED_BEFORE)) is not None:
            _pause(cluster, one, {PAUSED: before or None, PAUSED_BEFORE: None}, dry_run=dry_run)


def _check(hpa: Object) -> None:
    try:
        controllers.check("hpa", hpa, "spec", "scaleTargetRef")
    except Refused as error:
        if _keda(hpa) is None:
            raise
        lacks = " and ".join(f"{{{access.rule}}}" for access in NEEDED if access.resource == "scaledobjects")
        raise Refused(f"{error}. For the runbook to pause KEDA itself, the Role must have {lacks}") from error


def _point(cluster: Cluster, hpa: Object, target: str, *, note: str | None, dry_run: bool) -> None:
    meta = hpa["metadata"]
    body = {
        "metadata": {"resourceVersion": meta["resourceVersion"], "annotations": {TARGET: note}},
        "spec": {"scaleTargetRef": {"name": target}},
    }
    cluster.patch("horizontalpodautoscalers", meta["name"], body, style=MERGE, dry_run=dry_run)


def _pause(cluster: Cluster, scaled: Object, annotations: dict[str, str | None], *, dry_run: bool) -> None:
    meta = scaled["metadata"]
    body = {"metadata": {"resourceVersion": meta["resourceVersion"], "annotations": annotations}}
    cluster.patch("scaledobjects", meta["name"], body, style=MERGE, dry_run=dry_run)


def _of(cluster: Cluster, deployment: str) -> list[Object]:
    return [
        hpa
        for hpa in cluster.find("horizontalpodautoscalers")
        if hpa["spec"]["scaleTargetRef"].get("kind") == "Deployment"
        and deployment in (hpa["spec"]["scaleTargetRef"]["name"], notes(hpa).get(TARGET))
    ]


def _scaled_objects(cluster: Cluster, deployment: str) -> list[Object]:
    """None where the cluster has no KEDA, or where we may not look: an autoscaler of KEDA's then still says whose it is."""
    try:
        found = cluster.find("scaledobjects")
    except (NotFound, Refused):
        return []
    targets = ((one, one["spec"].get("scaleTargetRef") or {}) for one in found)
    return [one for one, at in targets if at.get("kind", "Deployment") == "Deployment" and at.get("name") == deployment]


def _keda(hpa: Object) -> str | None:
    owner = controller_of(hpa)
    return str(owner["name"]) if owner and owner.get("kind") == controllers.SCALED_OBJECT else None


def _names(things: list[Object]) -> set[str | None]:
    return {thing["metadata"]["name"] for thing in things}


def _suspended(hpa: Object) -> bool:
    return str(hpa["spec"]["scaleTargetRef"]["name"]).endswith(_NOBODY)


def _paused(scaled: Object) -> bool:
    """At nothing. One that is paused at a number of replicas is held there by KEDA."""
    return notes(scaled).get(PAUSED) == "0"
