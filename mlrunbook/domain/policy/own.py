"""What a model has of its own of a section: its keys laid over those of all models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


def own(common: T, keys: Mapping[str, Any], *, at: str) -> T:
    """A section of the policy with these keys laid over it; a list replaces a list. Raises ValueError that names the key, below `at`, which
    is unknown or has a value that it cannot have."""
    kind: Any = type(common)
    made: T = _made(kind, _adapter(kind).dump_json(common), json.dumps(keys), at)
    return made


@lru_cache(maxsize=1024)  # asked for at every step of every incident
def _made(kind: Any, common: bytes, own_keys: str, at: str) -> Any:
    whole, keys = json.loads(common), json.loads(own_keys)
    if unknown := _unknown(whole, keys):
        key, known = unknown
        raise ValueError(f"{at}.{key}: unknown key; known here: {', '.join(known)}")
    try:
        return _adapter(kind).validate_json(json.dumps(laid_over(whole, keys)), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (at, *first["loc"])))
        raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error


@cache
def _adapter(section: Any) -> TypeAdapter[Any]:
    return TypeAdapter(section)


def _unknown(common: Mapping[str, Any], keys: Mapping[str, Any]) -> tuple[str, list[str]] | None:
    for key, value in keys.items():
        if key not in common:
            return key, sorted(common)
        if isinstance(common[key], dict) and isinstance(value, Mapping) and (deeper := _unknown(common[key], value)):
            return f"{key}.{deeper[0]}", deeper[1]
    return None


def laid_over(common: Any, keys: Any) -> Any:
    """Key by key; what is no mapping replaces what was there."""
    if not isinstance(common, dict) or not isinstance(keys, Mapping):
        return keys
    return common | {key: laid_over(common.get(key), value) for key, value in keys.items()}
