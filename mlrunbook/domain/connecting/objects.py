"""Which objects of a namespace are a model's: by their names, images and what their containers are started with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlrunbook.domain.connecting.guesses import COMMON, Guess, likely, most_alike, nothing, resemblance, sure, undecided, words
from mlrunbook.domain.connecting.seen import ClusterSeen, ConfigMapSeen, DeploymentSeen, ServiceSeen

SWITCHES = ("threshold", "human_approval", "auto_work_orders", "auto_scheduling")
_VERSION_LABELS = ("version", "model-version", "model_version", "modelVersion", "release", "app.kubernetes.io/version")
_SIDECARS = frozenset({"istio-proxy", "linkerd-proxy", "envoy", "queue-proxy", "cloud-sql-proxy", "fluent-bit", "vault-agent", "agent"})
_NAME_LABELS = ("app", "app.kubernetes.io/name", "app.kubernetes.io/instance", "model", "component", "name")


@dataclass(frozen=True)
class ObjectsGuess:
    """`deployment` has no value: no object of this cluster is taken for the model's, and none is written."""

    deployment: Guess
    container: Guess = field(default_factory=lambda: nothing("no Deployment"))
    service: Guess = field(default_factory=lambda: nothing("no Deployment"))
    version_label: Guess = field(default_factory=lambda: nothing("no Deployment"))
    config_map: Guess = field(default_factory=lambda: nothing("no Deployment"))
    config_key: Guess = field(default_factory=lambda: nothing("no Deployment"))
    pod_selector: Mapping[str, str] = field(default_factory=dict)


def guess_objects(model: str, cluster: ClusterSeen) -> ObjectsGuess:
    deployment = _deployment(model, cluster.deployments)
    found = next((d for d in cluster.deployments if d.name == deployment.value), None)
    if found is None:
        return ObjectsGuess(deployment)
    service = _service(model, found, cluster.services)
    config_map = _config_map(model, found, cluster.config_maps)
    key = _config_key(next((c for c in cluster.config_maps if c.name == config_map.value), None))
    selector = _selector(found, cluster.deployments)
    return ObjectsGuess(deployment, _container(model, found), service, _version_label(found), config_map, key, selector)


def _deployment(model: str, deployments: Sequence[DeploymentSeen]) -> Guess:
    by_name = most_alike([d.name for d in deployments], model)
    if len(by_name) == 1:
        whole = resemblance(by_name[0], model) >= 1.0
        return (sure if whole else likely)(by_name[0], f"its name resembles {model}")
    if by_name:
        return undecided(by_name, f"the names of {' and '.join(by_name)} resemble {model} equally")
    inside = [d for d in deployments if _mentions(d, model)]
    if len(inside) == 1:
        return likely(inside[0].name, f"an image, a label or an argument of it names {model}")
    if inside:
        return undecided([d.name for d in inside], f"images or arguments of {' and '.join(d.name for d in inside)} name {model}")
    return nothing(f"none of {len(deployments)} Deployments has {model} in its name, image, labels or arguments")


def _mentions(deployment: DeploymentSeen, model: str) -> bool:
    texts = [*(image.rpartition("/")[2].partition(":")[0] for image in deployment.containers.values())]
    texts += [value for key, value in deployment.pod_labels.items() if key in _NAME_LABELS]
    ours = [w for w in words(model) if w not in COMMON] or list(words(model))
    said = words(deployment.text)
    return any(resemblance(t, model) >= 0.8 for t in texts) or _follows(ours, said)


def _follows(ours: Sequence[str], said: Sequence[str]) -> bool:
    return any(tuple(said[i : i + len(ours)]) == tuple(ours) for i in range(len(said) - len(ours) + 1))


def _container(model: str, deployment: DeploymentSeen) -> Guess:
    own = [name for name in deployment.containers if name not in _SIDECARS]
    if len(own) == 1:
        return sure(own[0], "the only container that is no sidecar")
    alike = most_alike(own, model) or [name for name in own if {"model", "server", "predictor", "api"} & set(words(name))]
    if len(alike) == 1:
        return likely(alike[0], f"of {', '.join(own)}, its name fits best")
    return undecided(own, f"the pods have {', '.join(own)}: whose log is the model server's?")


def _service(model: str, deployment: DeploymentSeen, services: Sequence[ServiceSeen]) -> Guess:
    routed = [s for s in services if s.selector and s.selector.items() <= deployment.pod_labels.items()]
    if len(routed) == 1:
        return sure(routed[0].name, f"it selects the pods of {deployment.name}")
    alike = most_alike([s.name for s in routed], model)
    if len(alike) == 1:
        return likely(alike[0], f"of {', '.join(s.name for s in routed)}, which all select these pods, its name fits best")
    if routed:
        return undecided([s.name for s in routed], f"all of them select the pods of {deployment.name}")
    return nothing(f"no Service selects the pods of {deployment.name}")


def _version_label(deployment: DeploymentSeen) -> Guess:
    found = [label for label in _VERSION_LABELS if label in deployment.pod_labels]
    if found:
        return sure(found[0], f"the pods carry {found[0]}={deployment.pod_labels[found[0]]}")
    return nothing("no label of the pods says a version: traffic cannot be routed by one")


def _config_map(model: str, deployment: DeploymentSeen, config_maps: Sequence[ConfigMapSeen]) -> Guess:
    used = [c for c in config_maps if c.name in deployment.config_maps]
    holding = [c for c in used if any(set(keys) & set(SWITCHES) for keys in c.json_keys.values())]
    if len(holding) == 1:
        return sure(holding[0].name, f"{deployment.name} uses it, and it holds a threshold or switches")
    if holding:
        names = [c.name for c in holding]
        return undecided(names, f"{' and '.join(names)} hold a threshold or switches, and {deployment.name} uses them all")
    reason = "none that its pods use holds a threshold or switches as JSON: path D ends at a person"
    return nothing(reason)


def _config_key(config_map: ConfigMapSeen | None) -> Guess:
    if config_map is None:
        return nothing("no ConfigMap")
    keys = [key for key, names in config_map.json_keys.items() if set(names) & set(SWITCHES)]
    if len(keys) == 1:
        return sure(keys[0], "its value is JSON with a threshold or switches")
    return undecided(keys, f"{' and '.join(keys)} hold a threshold or switches")


def _selector(deployment: DeploymentSeen, others: Sequence[DeploymentSeen]) -> Mapping[str, str]:
    """Labels that select these pods of whatever version, and those of no other Deployment."""
    chosen = {key: value for key, value in deployment.selector.items() if key not in _VERSION_LABELS}
    alone = all(other.name == deployment.name or not chosen.items() <= other.pod_labels.items() for other in others)
    return chosen if chosen and alone else dict(deployment.selector)
