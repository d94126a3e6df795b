"""The names of a model's objects in a Kubernetes cluster: each serves a kubectl line of the runbook."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlrunbook.domain.errors import Refused

# Names of Deployments, Services and ConfigMaps, and of label keys and values, as the Kubernetes documentation has them
# ("Object Names and IDs", "Labels and Selectors").
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


@dataclass(frozen=True)
class ClusterObjects:
    """One model's objects, all in the namespace of the settings. The two Deployments may be one and the same: usually they are.

    scaled_deployment       Step 2 `kubectl scale deployment/predictive-maintenance-model --replicas=0`, and `kubectl rollout undo`
    restarted_deployment    Path D `kubectl rollout restart deployment/model-server`
    service, version_label  Step 2 `kubectl patch svc/model-service -p '{"spec":{"selector":{"version":"v1.5.0"}}}'`; null: traffic is
                            not routed by version here
    config_map, config_key  Path D `kubectl edit configmap model-config`; the value of the key is JSON: threshold and switches; null: the
                            server takes none from the cluster, and a change of the threshold ends at a person
    pod_selector            Step 3 `kubectl logs -l app=model-server`, `kubectl get pods -l app=model-server`; what isolation cuts off
    container               whose log is the model server's, where a pod has several
    forensics_pods          labels of the pods that may still reach an isolated model server, in a namespace with the labels
    forensics_namespace     `forensics_namespace` (none: the same namespace)
    """

    scaled_deployment: str = "predictive-maintenance-model"
    restarted_deployment: str = "model-server"
    service: str | None = "model-service"
    version_label: str = "version"
    config_map: str | None = "model-config"
    config_key: str = "model-config.json"
    pod_selector: Mapping[str, str] = field(default_factory=lambda: {"app": "model-server"})
    container: str = "model-server"
    forensics_pods: Mapping[str, str] = field(default_factory=lambda: {"role": "forensics"})
    forensics_namespace: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("scaled_deployment", "restarted_deployment", "service", "config_map", "container"):
            name = getattr(self, key)
            if name is None and key in ("service", "config_map"):
                continue
            if not _NAME.fullmatch(name):
                raise ValueError(f"{key}: {name!r} is no name of a Kubernetes object: small letters, digits, - and .")
        if not _DATA_KEY.fullmatch(self.config_key):
            raise ValueError(f"config_key: {self.config_key!r} is no key of a ConfigMap: letters, digits, -, _ and .")
        if not _LABEL_KEY.fullmatch(self.version_label):
            raise ValueError(f"version_label: {self.version_label!r} is no Kubernetes label")
        self._check_labels()

    def _check_labels(self) -> None:
        for labels in ("pod_selector", "forensics_pods", "forensics_namespace"):
            for key, value in getattr(self, labels).items():
                if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
                    raise ValueError(f"{labels}: {key}={value} is no Kubernetes label")
        for labels in ("pod_selector", "forensics_pods"):  # an empty selector is every pod of the namespace
            if not getattr(self, labels):
                raise ValueError(f"{labels}: at least one label, or it means every pod of the namespace")


@dataclass(frozen=True)
class ClusterPolicy:
    """`default` are the objects of `default_model` and of no other model; None: they belong to nobody, and nothing may change them.
    `models` holds those of others (as does `models.<name>.cluster` of the policy)."""

    default_model: str | None = None
    default: ClusterObjects = field(default_factory=ClusterObjects)
    models: Mapping[str, ClusterObjects] = field(default_factory=dict)

    @property
    def by_model(self) -> Mapping[str, ClusterObjects]:
        """Every mapped model's objects."""
        own = {self.default_model: self.default} if self.default_model else {}
        return own | dict(self.models)

    def of(self, model: str) -> ClusterObjects:
        """The model's own objects. Refused for a model that policy does not map: there is no default to fall back to."""
        found = self.by_model.get(model)
        if found is None:
            names = ", ".join(sorted(self.by_model)) or "no model"
            raise Refused(
                f"policy maps no cluster objects to {model} (it maps {names}): name them in `models.{model}.cluster`; nothing was changed"
            )
        return found
