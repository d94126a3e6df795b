"""JSON that stands in a text of a message, as in the `Message` of Amazon SNS: read at the places that the policy names."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

from mlrunbook.base.edge import json_pieces
from mlrunbook.domain.policy.expressions import path_of

MAX_CHARS = 256 << 10  # of one text
MAX_PIECES = 100_000  # of all texts of one message


def opened(message: Any, paths: Sequence[str]) -> Any:
    """The message with the texts at these paths read; one that is no JSON object or list stays a text. In a list, each item's."""
    pieces_left = [MAX_PIECES]
    for path in paths:
        message = _opened(message, path_of(path), pieces_left)
    return message


def _opened(value: Any, path: Sequence[str], pieces_left: list[int]) -> Any:
    if not path:
        return _read(value, pieces_left)
    if isinstance(value, list):
        return [_opened(one, path, pieces_left) for one in value]
    if isinstance(value, dict) and path[0] in value:
        return value | {path[0]: _opened(value[path[0]], path[1:], pieces_left)}
    return value


def _read(value: Any, pieces_left: list[int]) -> Any:
    if not isinstance(value, str) or len(value) > MAX_CHARS or not value.lstrip().startswith(("{", "[")):
        return value
    pieces_left[0] -= json_pieces(value.encode(errors="replace"))
    if pieces_left[0] < 0:
        return value
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(value)
    return value
