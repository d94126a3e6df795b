"""The rendered manifests as data."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml

from tests.docs.pages import ROOT

FOLDER = ROOT / "deployments" / "kubernetes"
BASE, PRODUCTION, INGRESS = "base", "overlays/production", "overlays/ingress"
Manifest = Mapping[str, Any]


@cache
def rendered(folder: str) -> tuple[Manifest, ...]:
    """What `kubectl kustomize` makes of a folder. It asks no cluster."""
    done = subprocess.run(["kubectl", "kustomize", str(FOLDER / folder)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def every_file() -> tuple[Manifest, ...]:
    """The overlay's objects, and those that are created once beside it."""
    return (*rendered(PRODUCTION), yaml.safe_load((FOLDER / "model-config.yaml").read_text()))


def find(kind: str, name: str) -> Manifest:
    (one,) = (m for m in every_file() if (m["kind"], m["metadata"]["name"]) == (kind, name))
    return one


def of_kind(kind: str) -> list[Manifest]:
    return [m for m in every_file() if m["kind"] == kind]


def pods() -> Iterator[tuple[Manifest, Manifest]]:
    """(Deployment, its pod's template)."""
    for deployment in of_kind("Deployment"):
        yield deployment, deployment["spec"]["template"]


def containers(*, init: bool = True) -> Iterator[tuple[str, Manifest, Manifest]]:
    """(name, pod spec, container)."""
    for deployment, pod in pods():
        for key in ("initContainers", "containers") if init else ("containers",):
            for container in pod["spec"].get(key, ()):
                yield f"{deployment['metadata']['name']}/{container['name']}", pod["spec"], container
