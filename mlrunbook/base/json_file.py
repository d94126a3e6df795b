"""Small JSON files that several processes share: atomic writes, a lock, a revision that grows with each write."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlrunbook.domain.errors import Invalid, NotFound, Transient


def read(path: Path) -> dict[str, Any]:
    """The file's content. NotFound when it is not there, Invalid when it is not a JSON object."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise NotFound(f"{path} does not exist; `mlrunbook up` creates it") from error
    except json.JSONDecodeError as error:
        raise Invalid(f"{path} is not valid JSON: {error}; correct or delete it") from error
    if not isinstance(content, dict):
        raise Invalid(f"{path} must hold a JSON object; correct or delete it")
    return content


def patch(path: Path, changes: Mapping[str, Any], *, expected_revision: str | None = None) -> dict[str, Any]:
    """Merge `changes` into the file (created when missing), leave other keys, add one to "revision".

    With `expected_revision`, raise Transient when somebody wrote meanwhile: read again and retry.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        content = read(path) if path.exists() else {"revision": 0}
        if expected_revision is not None and str(content.get("revision")) != expected_revision:
            raise Transient(f"{path} is at revision {content.get('revision')}, not {expected_revision}: somebody changed it meanwhile")
        content |= dict(changes) | {"revision": content.get("revision", 0) + 1}
        temporary = path.with_suffix(".new")
        with open(temporary, "w") as out:
            json.dump(content, out, indent=2, sort_keys=True)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
        return content
