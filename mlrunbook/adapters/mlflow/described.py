"""A version of MLflow's registry in the runbook's words: what it was trained on stands in its tags or its run's params, its features in its
signature. What nobody wrote down stays None."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from mlrunbook.adapters.mlflow.client import Run, Version
from mlrunbook.domain.observed import ModelVersion

PREFIX = "mlrunbook."
TRAINED_FROM = ("trained_from", "train_start", "training_start")
TRAINED_TO = ("trained_to", "train_end", "training_end")
THRESHOLD = ("threshold", "decision_threshold")
ASSET_TYPES = ("asset_types",)
FEATURES = ("features",)


def described(version: Version, run: Run | None, signature: tuple[str, ...] | None) -> ModelVersion:
    """Tags of the version count before its run's, and those before its params."""
    said = {**(run.params if run else {}), **(run.tags if run else {}), **version.tags}
    begin, end = _time(said, TRAINED_FROM), _time(said, TRAINED_TO)
    if end is not None and end > version.created_at:
        end = None  # nothing learns from what comes after it: somebody's typing error
    if begin is not None and begin > (end or version.created_at):
        begin = None
    return ModelVersion(
        version.version,
        version.created_at,
        begin,
        end,
        _names(said, FEATURES) or signature,
        _share(said, THRESHOLD),
        _names(said, ASSET_TYPES),
    )


def _first(said: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    keys = [*(PREFIX + name for name in names), *names]
    return next((said[key].strip() for key in keys if said.get(key, "").strip()), None)


def _time(said: Mapping[str, str], names: tuple[str, ...]) -> datetime | None:
    """ISO 8601; without a zone it is UTC."""
    try:
        at = datetime.fromisoformat(_first(said, names) or "")
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _share(said: Mapping[str, str], names: tuple[str, ...]) -> float | None:
    try:
        value = float(_first(said, names) or "")
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def _names(said: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, ...] | None:
    """By commas."""
    found = tuple(name.strip() for name in (_first(said, names) or "").split(",") if name.strip())
    return found or None
