"""An evidence bundle on disk: every file checked against its SHA-256, and a SHA256SUMS that anybody can check again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlrunbook.domain.containment.evidence import MANIFEST
from mlrunbook.domain.errors import Invalid, Refused

SUMS = "SHA256SUMS"
HEAD = "CHAIN_HEAD"  # for `mlrunbook incidents verify ID --head "$(cat CHAIN_HEAD)"`


def write(out: Path, files: Sequence[Mapping[str, Any]], fetch: Callable[[str], bytes], *, head: str) -> int:
    """Write `files` ("name", "sha256") below `out`, which must be empty or new; returns how many. Refused when a file does not fit its
    own SHA-256, or the one in the manifest. `head`: of the incident's chain, which binds these files; it is written beside them."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Invalid(f"{out} is there already: give a new or empty folder", field="out")
    listed: dict[str, str] = {}
    if any(file["name"] == MANIFEST for file in files):
        listed = {entry["name"]: entry["sha256"] for entry in json.loads(fetch(MANIFEST))["files"]}
    sums = []
    for file in files:
        name, wanted = str(file["name"]), str(file["sha256"])
        path = out / name
        if not path.resolve().is_relative_to(out.resolve()):
            raise Refused(f"the file {name!r} would be written outside of {out}")
        content = fetch(name)
        digest = hashlib.sha256(content).hexdigest()
        if digest != wanted or listed.get(name, digest) != digest:
            raise Refused(f"{name} does not fit its SHA-256: it was changed after it was preserved")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        sums.append(f"{digest}  {name}\n")
    (out / HEAD).write_text(f"{head}\n")
    sums.append(f"{hashlib.sha256((out / HEAD).read_bytes()).hexdigest()}  {HEAD}\n")
    (out / SUMS).write_text("".join(sums))
    return len(files)
