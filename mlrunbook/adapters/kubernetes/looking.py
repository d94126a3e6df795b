"""What a namespace holds that may be a model server's, for whoever sets it up. Reads alone; of a ConfigMap only the names of its keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlrunbook.adapters.kubernetes.access import LOOKED_AT
from mlrunbook.adapters.kubernetes.cluster import Cluster, Object
from mlrunbook.domain.connecting.seen import ClusterSeen, ConfigMapSeen, DeploymentSeen, ServiceSeen
from mlrunbook.domain.errors import Refused

_SAYS_NO_MODEL = ("password", "secret", "token", "key", "credential")


def look(cluster: Cluster) -> ClusterSeen:
    """`lacking` says what may not be listed. Raises Refused where nothing may, and Transient where the API server does not answer."""
    found: dict[str, list[Object]] = {}
    refused: list[Refused] = []
    for access in LOOKED_AT:
        try:
            found[access.resource] = cluster.find(access.resource)
        except Refused as error:
            refused.append(error)
            if access.resource == "deployments":
                raise
    return ClusterSeen(
        cluster.namespace,
        tuple(_deployment(one) for one in found["deployments"]),
        tuple(ServiceSeen(_name(one), one["spec"].get("selector") or {}) for one in found.get("services", ())),
        tuple(_config_map(one) for one in found.get("configmaps", ())),
        tuple(str(error) for error in refused),
    )


def _name(thing: Object) -> str:
    return str(thing["metadata"]["name"])


@dataclass
class _Said:
    config_maps: dict[str, None] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)


def _deployment(thing: Object) -> DeploymentSeen:
    template = thing["spec"]["template"]
    pod, said = template.get("spec") or {}, _Said()
    for volume in pod.get("volumes") or ():
        for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
            if "configMap" in source:
                said.config_maps[str(source["configMap"].get("name"))] = None
    for container in pod.get("containers") or ():
        _of_container(container, said)
    return DeploymentSeen(
        _name(thing),
        {str(c["name"]): str(c.get("image") or "") for c in pod.get("containers") or ()},
        (template.get("metadata") or {}).get("labels") or {},
        thing["spec"]["selector"].get("matchLabels") or {},
        tuple(said.config_maps),
        " ".join(said.text),
    )


def _of_container(container: Mapping[str, Any], said: _Said) -> None:
    said.text += [str(part) for part in (*(container.get("command") or ()), *(container.get("args") or ()))]
    for one in container.get("env") or ():
        source = (one.get("valueFrom") or {}).get("configMapKeyRef")
        if source:
            said.config_maps[str(source.get("name"))] = None
        if one.get("value") and not any(word in str(one["name"]).lower() for word in _SAYS_NO_MODEL):
            said.text.append(str(one["value"]))
    for one in container.get("envFrom") or ():
        if "configMapRef" in one:
            said.config_maps[str(one["configMapRef"].get("name"))] = None


def _config_map(thing: Object) -> ConfigMapSeen:
    found = {}
    for key, value in (thing.get("data") or {}).items():
        try:
            content = json.loads(value)
        except ValueError:
            continue
        if isinstance(content, dict):
            found[str(key)] = tuple(str(name) for name in content)
    return ConfigMapSeen(_name(thing), found)
