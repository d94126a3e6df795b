"""Who would undo a change by hand: the controller that an object belongs to, or a GitOps tool that applies it again.

Pure, from the object's JSON. A change that somebody else takes back within seconds is none: it is refused beforehand, with what a person
can do. An object says with the annotation SELF_HEAL that its changes by hand stay.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlrunbook.adapters.kubernetes.reading import labels, notes
from mlrunbook.domain.errors import Refused

Object = Mapping[str, Any]
SELF_HEAL = "mlrunbook/self-heal"  # "off": no controller undoes changes of this object by hand
SCALED_OBJECT = "ScaledObject"
_PAUSED = "autoscaling.keda.sh/paused-replicas"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_GITOPS = ("argocd", "kustomize-controller", "helm-controller")  # their field managers begin so


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
    """Raises Refused where a change of the field at `path` would be undone: by the owner's controller, or by Argo CD or Flux, whose
    source has that field. What the source leaves open they leave alone."""
    check_owner(kind, thing)
    if _stays(thing) or not (found := _gitops(kind, thing)) or not _declares(thing, path):
        return
    tool, command = found
    raise Refused(
        f"{tool} manages {kind}/{thing['metadata']['name']}, and its source may set {'.'.join(path)}: it would undo the change. "
        f"Pause it: `{command}`. {_if_it_stays(kind, thing)}"
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
    group = str(owner.get("apiVersion", "")).rpartition("/")[0]
    if kind == SCALED_OBJECT:
        return f"{kubectl} annotate scaledobject {name} {_PAUSED}=0 --overwrite"
    if kind == "InferenceService":
        return f"{kubectl} annotate inferenceservice {name} serving.kserve.io/stop=true --overwrite"
    if group.endswith("knative.dev"):
        service = labels(thing).get("serving.knative.dev/service", name)
        return f"{kubectl} label kservice {service} networking.knative.dev/visibility=cluster-local --overwrite"
    return f"{kubectl} edit {kind.lower()}{'.' + group if group else ''} {name}"


def _gitops(kind: str, thing: Object) -> tuple[str, str] | None:
    """Whose it is, and the command that pauses it."""
    noted, labelled, me = notes(thing), labels(thing), f"{_kubectl(thing)} annotate {kind} {thing['metadata']['name']}"
    managers = [str(entry.get("manager", "")) for entry in thing["metadata"].get("managedFields") or ()]
    tracked = noted.get("argocd.argoproj.io/tracking-id", "").partition(":")[0] or labelled.get("argocd.argoproj.io/instance")
    if tracked or any(m.startswith("argocd") for m in managers):
        app = (tracked or labelled.get("app.kubernetes.io/instance", "APPLICATION")).rpartition("_")[2]
        patch = json.dumps({"spec": {"syncPolicy": {"automated": None}}})
        return "Argo CD", f"kubectl -n argocd patch application {app} --type merge -p '{patch}'"
    if "kustomize.toolkit.fluxcd.io/name" in labelled or "kustomize-controller" in managers:
        if noted.get("kustomize.toolkit.fluxcd.io/reconcile") == "disabled" or noted.get("kustomize.toolkit.fluxcd.io/ssa") == "Ignore":
            return None
        return "Flux", f"{me} kustomize.toolkit.fluxcd.io/reconcile=disabled --overwrite"
    if "helm.toolkit.fluxcd.io/name" in labelled or "helm-controller" in managers:
        if noted.get("helm.toolkit.fluxcd.io/driftDetection") == "disabled":
            return None
        return "Flux", f"{me} helm.toolkit.fluxcd.io/driftDetection=disabled --overwrite"
    return None


def _declares(thing: Object, path: Sequence[str]) -> bool:
    """Whether the source of a GitOps tool has the field. True where nothing tells what it applied."""
    applied = [e.get("fieldsV1") or {} for e in thing["metadata"].get("managedFields") or () if _applied_by_gitops(e)]
    if text := notes(thing).get(_LAST_APPLIED):
        return _has(json.loads(text), path) or any(_owns(fields, path) for fields in applied)
    return any(_owns(fields, path) for fields in applied) if applied else True


def _applied_by_gitops(entry: Object) -> bool:
    return entry.get("operation") == "Apply" and str(entry.get("manager", "")).startswith(_GITOPS)


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
