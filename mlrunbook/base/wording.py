"""What pydantic finds wrong, in plain words: the same for a policy file and for a request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_NOUNS = {
    "int_": "a whole number",
    "float_": "a number",
    "bool_": "true or false",
    "string_": "text",
    "tuple_": "a list",
    "list_": "a list",
    "datetime_": "a date and time, as in 2026-12-24T00:00:00Z",
    "model_": "a section of keys and values",
    "dataclass_": "a section of keys and values",
    "dict_": "a section of keys and values",
}


def plainly(error: Mapping[str, Any]) -> str:
    """One of `ValidationError.errors()`, to follow the name of what is wrong.

    >>> plainly({"type": "greater_than_equal", "ctx": {"ge": 1}, "input": 0, "msg": "Input should be greater than or equal to 1"})
    'must be at least 1'
    """
    context, kind = error.get("ctx", {}), str(error["type"])
    wanted = {
        "greater_than_equal": f"must be at least {_figure(context.get('ge'))}",
        "greater_than": f"must be more than {_figure(context.get('gt'))}",
        "less_than_equal": f"must be at most {_figure(context.get('le'))}",
        "less_than": f"must be less than {_figure(context.get('lt'))}",
        "missing": "is required",
        "extra_forbidden": "is no key here",
        "too_short": f"needs at least {context.get('min_length')} item(s)",
        "too_long": f"holds more than {context.get('max_length')} item(s)",
        "string_too_short": "must not be empty",
        "string_too_long": f"is longer than {context.get('max_length')} characters",
        "timezone_aware": "needs a time zone, as in 2026-12-24T00:00:00Z",
        "value_error": str(error["msg"]).removeprefix("Value error, "),
        "finite_number": "must be a finite number",
        "enum": f"must be {context.get('expected')}",
    }.get(kind)
    if wanted:
        return wanted
    noun = next((noun for prefix, noun in _NOUNS.items() if kind.startswith(prefix)), None)
    if kind == "string_pattern_mismatch" or noun is None:
        return str(error["msg"]).replace("Input should be", "must be")
    return f"must be {noun}, not {shown(error['input'])}"


def shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


def _figure(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
