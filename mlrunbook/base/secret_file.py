"""Files that hold a secret: readable by us alone from the first byte on, and replaced whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write(path: Path, content: str) -> None:
    """Replace the file at once, never readable by others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(content)
    fresh.replace(path)


def kept(path: Path, make: Callable[[], str]) -> str:
    """The file's content, made at the first call."""
    if not path.exists():
        write(path, make())
    return path.read_text().strip()
