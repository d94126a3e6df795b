"""The desired state of the one model server of this machine, and whose it is (`<data>/serving/desired.json`).

`mlrunbook up` decides which model the machine serves and notes it here before the server starts; verbs write the rest, and `up` alone
makes it true. Whose server it is never comes from the server itself: it is dead just when a restart is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlrunbook.base import json_file
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.policy.owned import not_ours

DEFAULT_MODEL = "predictive_maintenance"  # served where nobody has noted another one
_UNASKED: dict[str, Any] = {"model": None, "replicas": 1, "route_version": None, "restart_id": None, "isolated": False}


def desired_state(path: Path) -> dict[str, Any]:
    """What the model server shall be: replicas 0 or 1, route_version, restart_id, isolated. One server where nobody asked for anything.
    `model` is whose it is; None: nobody has noted that yet."""
    return _UNASKED | (json_file.read(path) if path.exists() else {})


def claim(path: Path, model: str = DEFAULT_MODEL) -> dict[str, Any]:
    """The desired state, with the model that this machine serves: the one noted, else `model`, which is noted from now on."""
    desired = desired_state(path)
    return desired if desired["model"] else _UNASKED | json_file.patch(path, {"model": model})


def desired_of(path: Path, model: str) -> dict[str, Any]:
    """The desired state of this model's server. Refused for a model that this machine does not serve, and for any while nobody has noted
    which one it does."""
    desired = desired_state(path)
    if not desired["model"]:
        raise Refused(f"{path} does not say which model this machine serves, so nothing was changed: start `mlrunbook up`, which notes it")
    if desired["model"] != model:
        raise not_ours(model, "this machine", [str(desired["model"])])
    return desired
