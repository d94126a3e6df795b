"""An evidence bundle on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlrunbook.domain.containment import bundle
from mlrunbook.domain.errors import Invalid, Refused


def write(out: Path, files: Sequence[Mapping[str, Any]], fetch: Callable[[str], bytes], *, head: str) -> int:
    """Write `files` ("name", "sha256") below `out`, which must be empty or new, as `bundle.checked` gives them; returns how many."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Invalid(f"{out} is there already: give a new or empty folder", field="out")
    kept = [(str(file["name"]), str(file["sha256"])) for file in files]
    for name, content in bundle.checked(kept, fetch, head=head):
        path = out / name
        if not path.resolve().is_relative_to(out.resolve()):
            raise Refused(f"the file {name!r} would be written outside of {out}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return len(files)
