"""The model server's config in a ConfigMap: JSON under one key, as the config file of the local runtime has it. Other keys stay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlrunbook.adapters.kubernetes import controllers
from mlrunbook.adapters.kubernetes.cluster import Cluster, Object
from mlrunbook.adapters.kubernetes.errors import Conflict
from mlrunbook.adapters.local import serving_config
from mlrunbook.domain.errors import Invalid, Refused, Transient
from mlrunbook.domain.observed import ServingConfig
from mlrunbook.domain.policy.cluster import ClusterObjects


def read(cluster: Cluster, objects: ClusterObjects) -> ServingConfig:
    return _read(cluster, objects)[0]


def write(
    cluster: Cluster, objects: ClusterObjects, changes: Mapping[str, Any], *, expected_revision: str | None, dry_run: bool = False
) -> ServingConfig:
    """Transient when the ConfigMap is no longer at `expected_revision` (its resourceVersion; None: whatever it is now)."""
    config_map = _named(objects)
    serving_config.check_changes(config_map, changes)
    stored, content, found = _read(cluster, objects)
    if expected_revision not in (None, stored.revision):
        raise Transient(f"configmap/{config_map} is at {stored.revision}, not {expected_revision}: somebody changed it meanwhile")
    if all(content.get(key) == value for key, value in changes.items()):
        return stored
    controllers.check("configmap", found, "data", objects.config_key)
    content |= dict(changes)
    if isinstance(content.get("revision"), int):  # the file's own count, which the model server shows
        content["revision"] += 1
    body = {"metadata": {"resourceVersion": stored.revision}, "data": {objects.config_key: json.dumps(content, indent=2, sort_keys=True)}}
    try:
        written = cluster.patch("configmaps", config_map, body, dry_run=dry_run)
    except Conflict as error:
        raise Transient(f"configmap/{config_map}: somebody changed it meanwhile: {error}") from error
    return serving_config.parsed(f"configmap/{config_map}", content, revision=written["metadata"]["resourceVersion"])


def _named(objects: ClusterObjects) -> str:
    if objects.config_map is None:
        raise Refused(
            f"policy names no ConfigMap that deployment/{objects.restarted_deployment} takes its threshold and switches from: "
            "change them where the team keeps them, or name it in `config_map`"
        )
    return objects.config_map


def _read(cluster: Cluster, objects: ClusterObjects) -> tuple[ServingConfig, dict[str, Any], Object]:
    config_map = _named(objects)
    found = cluster.get("configmaps", config_map)
    where = f"configmap/{config_map}, key {objects.config_key}"
    text = (found.get("data") or {}).get(objects.config_key)
    if text is None:
        raise Invalid(f"{where} is not there: it must hold the config as JSON", field=objects.config_key)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise Invalid(f"{where} is not valid JSON: {error}", field=objects.config_key) from error
    if not isinstance(content, dict):
        raise Invalid(f"{where} must hold a JSON object", field=objects.config_key)
    return serving_config.parsed(where, content, revision=found["metadata"]["resourceVersion"]), content, found
