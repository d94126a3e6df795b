"""What a model has of its own of a section: its keys laid over those of all models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mlrunbook.domain.policy.judging import SeverityPolicy

_SEVERITY = TypeAdapter(SeverityPolicy)


def own_severity(common: SeverityPolicy, own: Mapping[str, Any], *, at: str = "severity") -> SeverityPolicy:
    """Raises ValueError that names the key, below `at`, which is unknown or has a value that it cannot have."""
    whole = _SEVERITY.dump_python(common, mode="json")
    if unknown := _unknown(whole, own):
        key, known = unknown
        raise ValueError(f"{at}.{key}: unknown key; known here: {', '.join(known)}")
    try:
        return _SEVERITY.validate_json(json.dumps(_laid_over(whole, own)), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (at, *first["loc"])))
        raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error


def _unknown(common: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[str, list[str]] | None:
    for key, value in own.items():
        if key not in common:
            return key, sorted(common)
        if isinstance(common[key], dict) and isinstance(value, Mapping) and (deeper := _unknown(common[key], value)):
            return f"{key}.{deeper[0]}", deeper[1]
    return None


def _laid_over(common: Any, own: Any) -> Any:
    if not isinstance(common, dict) or not isinstance(own, Mapping):
        return own
    return common | {key: _laid_over(common.get(key), value) for key, value in own.items()}
