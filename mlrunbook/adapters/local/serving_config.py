"""The model server's config file (the runbook's `configmap model-config`): threshold and switches, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlrunbook.base import json_file
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.observed import ServingConfig

SWITCHES = ("human_approval", "auto_work_orders", "auto_scheduling")
NORMAL = {"human_approval": False, "auto_work_orders": True, "auto_scheduling": True}


def read(path: Path) -> ServingConfig:
    """NotFound when there is no file; Invalid, naming the key, when a value is missing or wrong."""
    content = json_file.read(path)
    revision = _checked(path, content, "revision", isinstance(content.get("revision"), int), "a whole number")
    return parsed(path, content, revision=str(revision))


def parsed(where: Path | str, content: Mapping[str, Any], *, revision: str) -> ServingConfig:
    """The config in `content`. Invalid, naming `where` and the key, when a value is missing or wrong."""
    return ServingConfig(
        revision=revision,
        threshold=float(_checked(where, content, "threshold", _is_threshold(content.get("threshold")), "a number over 0 and under 1")),
        **{key: _checked(where, content, key, isinstance(content.get(key), bool), "true or false") for key in SWITCHES},
    )


def check_changes(whose: str, changes: Mapping[str, Any]) -> None:
    """Invalid, naming the key, when `changes` are none that a config can take."""
    known = {"threshold", *SWITCHES}
    if unknown := set(changes) - known:
        raise Invalid(f"{whose}'s config has no {sorted(unknown)[0]!r}; it has {', '.join(sorted(known))}", field=sorted(unknown)[0])
    if not _is_threshold(changes.get("threshold", 0.5)):
        threshold = changes["threshold"]
        raise Invalid(f"{whose}'s threshold must be a number over 0 and under 1, not {threshold!r}", field="threshold")
    for key in SWITCHES:
        if not isinstance(changes.get(key, True), bool):
            raise Invalid(f"{whose}'s {key} must be true or false, not {changes[key]!r}", field=key)


def ensure(path: Path, *, threshold: float) -> ServingConfig:
    """The config, created with `threshold` and every switch as in normal operation when there is none."""
    if not path.exists():
        json_file.patch(path, {"threshold": threshold} | NORMAL)
    return read(path)


def _is_threshold(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1


def _checked(path: Path | str, content: Mapping[str, Any], key: str, good: bool, expected: str) -> Any:
    if not good:
        raise Invalid(f"{path}: {key} must be {expected}, not {content.get(key)!r}", field=key)
    return content[key]
