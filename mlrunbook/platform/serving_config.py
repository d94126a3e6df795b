"""The model server's config file (the runbook's `configmap model-config`): threshold and switches, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlrunbook import statefile
from mlrunbook.domain.errors import Invalid
from mlrunbook.ports import ServingConfig

SWITCHES = ("human_approval", "auto_work_orders", "auto_scheduling")
NORMAL = {"human_approval": False, "auto_work_orders": True, "auto_scheduling": True}


def read(path: Path) -> ServingConfig:
    """NotFound when there is no file; Invalid, naming the key, when a value is missing or wrong."""
    content = statefile.read(path)
    return ServingConfig(
        revision=str(_checked(path, content, "revision", isinstance(content.get("revision"), int), "a whole number")),
        threshold=float(_checked(path, content, "threshold", _is_threshold(content.get("threshold")), "a number over 0 and under 1")),
        **{key: _checked(path, content, key, isinstance(content.get(key), bool), "true or false") for key in SWITCHES},
    )


def ensure(path: Path, *, threshold: float) -> ServingConfig:
    """The config, created with `threshold` and every switch as in normal operation when there is none."""
    if not path.exists():
        statefile.patch(path, {"threshold": threshold} | NORMAL)
    return read(path)


def _is_threshold(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1


def _checked(path: Path, content: dict[str, Any], key: str, good: bool, expected: str) -> Any:
    if not good:
        raise Invalid(f"{path}: {key} must be {expected}, not {content.get(key)!r}", field=key)
    return content[key]
