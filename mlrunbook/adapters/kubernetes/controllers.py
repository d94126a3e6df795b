"""Who would undo a change by hand: the controller that an object belongs to, or a tool that applies it again from its source.

Pure, from the object's JSON. A change that somebody else takes back within seconds is none: it is refused beforehand, with what a person
can do. An object says with the annotation SELF_HEAL that its changes by hand stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlrunbook.adapters.kubernetes.reading import controller_of, is_ready, labels, notes
from mlrunbook.domain.errors import Refused

Object = Mapping[str, Any]
SELF_HEAL = "mlrunbook/self-heal"  # "off": no controller undoes changes of this object by hand
SCALED_OBJECT = "ScaledObject"
_PAUSED = "autoscaling.keda.sh/paused-replicas"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_APPLIERS = ("argocd", "kustomize-controller", "helm-controller", "configsync")  # their field managers begin so
_CONFIG_SYNC = "configmanagement.gke.io/managed"
_DECLARED = "configsync.gke.io/declared-fields"  # in the words of managedFields
_ADDON_MODE = "addonmanager.kubernetes.io/mode"
_FOR_A_WHILE = ("Job", "CronJob")  # whose pods end by themselves


def check_owner(kind: str, thing: Object) -> None:
    """Raises Refused where another object owns it: that one's controller puts it back, whatever the change."""
    owners = thing["metadata"].get("ownerReferences") or ()
    owner = next((o for o in owners if o.get("controller")), next(iter(owners), None))
    if owner is None or _stays(thing):
        return
    what = f"{kind}/{thing['metadata']['name']}"
    raise Refused(
        f"{what} belongs to {owner['kind']}/{owner['name']}: its controller would undo the change within seconds. "
        f"Make the change there: `{_at_the_owner(owner, thing)}`. {_if_it_stays(kind, thing)}"
    )


def check(kind: str, thing: Object, *path: str) -> None:
    """Raises Refused where a change of the field at `path` would be undone: by the owner's controller, or by a tool such as Argo CD or
    Flux, whose source has that field. What the source leaves open they leave alone."""
    check_owner(kind, thing)
    found = next((found for ask in (_argo, _flux, _config_sync, _addon_manager) if (found := ask(kind, thing))), None)
    if _stays(thing) or found is None or not _declares(thing, path):
        return
    tool, pause = found
    raise Refused(
        f"{tool} manages {kind}/{thing['metadata']['name']}, and its source may set {'.'.join(path)}: it would undo the change. "
        f"Pause it: {pause}. {_if_it_stays(kind, thing)}"
    )


def elsewhere(pods: Sequence[Object], replica_sets: Sequence[Object]) -> Iterator[tuple[Object, Object]]:
    """(pod, owner) of those ready pods that no Deployment runs: scaling one leaves them serving. An Argo Rollout with a `workloadRef` takes
    only the template from its Deployment."""
    sets = {one["metadata"]["uid"]: one for one in replica_sets}
    for pod in filter(is_ready, pods):
        owner = controller_of(pod)
        if owner and owner["kind"] == "ReplicaSet":
            owner = controller_of(sets[owner["uid"]]) if owner["uid"] in sets else None
        if owner and owner["kind"] not in ("Deployment", *_FOR_A_WHILE):
            yield pod, owner


def check_pods(deployment: str, pods: Sequence[Object], replica_sets: Sequence[Object]) -> None:
    """Raises Refused where scaling this Deployment would leave pods of the model serving."""
    for pod, owner in elsewhere(pods, replica_sets):
        what = f"{_resource(owner)}/{owner['name']}"
        raise Refused(
            f"pod/{pod['metadata']['name']} serves the model and belongs to {owner['kind']}/{owner['name']}: "
            f"scaling deployment/{deployment} would not stop it. Stop it there: `{_kubectl(pod)} scale {what} --replicas=0`"
        )


def _stays(thing: Object) -> bool:
    return notes(thing).get(SELF_HEAL) == "off"


def _if_it_stays(kind: str, thing: Object) -> str:
    return f"Where a change by hand stays: `{_kubectl(thing)} annotate {kind} {thing['metadata']['name']} {SELF_HEAL}=off`"


def _kubectl(thing: Object) -> str:
    return f"kubectl -n {thing['metadata'].get('namespace', 'default')}"


def _at_the_owner(owner: Object, thing: Object) -> str:
    """What stops serving, where the owner's kind has a switch for it; else where its specification is."""
    kind, name, kubectl = str(owner["kind"]), owner["name"], _kubectl(thing)
    if kind == SCALED_OBJECT:
        return f"{kubectl} annotate scaledobject {name} {_PAUSED}=0 --overwrite"
    if kind == "InferenceService":
        return f"{kubectl} annotate inferenceservice {name} serving.kserve.io/stop=true --overwrite"
    if _resource(owner).endswith("knative.dev"):
        service = labels(thing).get("serving.knative.dev/service", name)
        return f"{kubectl} label kservice {service} networking.knative.dev/visibility=cluster-local --overwrite"
    return f"{kubectl} edit {_resource(owner)} {name}"


def _resource(owner: Object) -> str:
    """As kubectl names its kind."""
    group = str(owner.get("apiVersion", "")).rpartition("/")[0]
    return str(owner["kind"]).lower() + (f".{group}" if group else "")


def _annotate(kind: str, thing: Object, said: str) -> str:
    return f"`{_kubectl(thing)} annotate {kind} {thing['metadata']['name']} {said} --overwrite`"


def _managers(thing: Object) -> list[str]:
    return [str(entry.get("manager", "")) for entry in thing["metadata"].get("managedFields") or ()]


def _argo(_: str, thing: Object) -> tuple[str, str] | None:
    """Whose it is, and what pauses it; None where it is not, or is paused. So are the ones below."""
    labelled = labels(thing)
    tracked = notes(thing).get("argocd.argoproj.io/tracking-id", "").partition(":")[0] or labelled.get("argocd.argoproj.io/instance")
    if not tracked and not any(manager.startswith("argocd") for manager in _managers(thing)):
        return None
    app = (tracked or labelled.get("app.kubernetes.io/instance", "APPLICATION")).rpartition("_")[2]
    patch = json.dumps({"spec": {"syncPolicy": {"automated": None}}})
    return "Argo CD", f"`kubectl -n argocd patch application {app} --type merge -p '{patch}'`"


def _flux(kind: str, thing: Object) -> tuple[str, str] | None:
    noted, labelled, managers = notes(thing), labels(thing), _managers(thing)
    if "kustomize.toolkit.fluxcd.io/name" in labelled or "kustomize-controller" in managers:
        if noted.get("kustomize.toolkit.fluxcd.io/reconcile") == "disabled" or noted.get("kustomize.toolkit.fluxcd.io/ssa") == "Ignore":
            return None
        return "Flux", _annotate(kind, thing, "kustomize.toolkit.fluxcd.io/reconcile=disabled")
    if "helm.toolkit.fluxcd.io/name" in labelled or "helm-controller" in managers:
        if noted.get("helm.toolkit.fluxcd.io/driftDetection") == "disabled":
            return None
        return "Flux", _annotate(kind, thing, "helm.toolkit.fluxcd.io/driftDetection=disabled")
    return None


def _config_sync(kind: str, thing: Object) -> tuple[str, str] | None:
    managed = notes(thing).get(_CONFIG_SYNC)
    if managed == "disabled" or not (managed or any(manager.startswith("configsync") for manager in _managers(thing))):
        return None
    return "Config Sync", _annotate(kind, thing, f"{_CONFIG_SYNC}=disabled")


def _addon_manager(_: str, thing: Object) -> tuple[str, str] | None:
    if labels(thing).get(_ADDON_MODE) != "Reconcile":
        return None
    return "The addon manager", f"set the label {_ADDON_MODE}: EnsureExists in its manifest on the control plane"


def _declares(thing: Object, path: Sequence[str]) -> bool:
    """Whether the source of such a tool has the field. True where nothing tells what it applied."""
    applied = [e.get("fieldsV1") or {} for e in thing["metadata"].get("managedFields") or () if _applied_again(e)]
    if declared := notes(thing).get(_DECLARED):
        return _owns(json.loads(declared), path)
    if text := notes(thing).get(_LAST_APPLIED):
        return _has(json.loads(text), path) or any(_owns(fields, path) for fields in applied)
    return any(_owns(fields, path) for fields in applied) if applied else True


def _applied_again(entry: Object) -> bool:
    return entry.get("operation") == "Apply" and str(entry.get("manager", "")).startswith(_APPLIERS)


def _has(content: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(content, Mapping) or key not in content:
            return False
        content = content[key]
    return True


def _owns(fields: Any, path: Sequence[str]) -> bool:
    """In the words of managedFields, where a map without keys of its own is owned as a whole."""
    for key in path:
        if f"f:{key}" not in fields:
            return False
        fields = fields[f"f:{key}"]
        if not fields:
            return True
    return True
