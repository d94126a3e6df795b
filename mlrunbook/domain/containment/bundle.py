"""An evidence bundle as it leaves the store: every file checked against its SHA-256, and a SHA256SUMS that anybody can check again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath

from mlrunbook.domain.containment.evidence import MANIFEST
from mlrunbook.domain.errors import Refused

SUMS = "SHA256SUMS"
HEAD = "CHAIN_HEAD"  # for `mlrunbook incidents verify ID --head "$(cat CHAIN_HEAD)"`


def checked(kept: Sequence[tuple[str, str]], fetch: Callable[[str], bytes], *, head: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file that is kept (its name and SHA-256), then the two that are made for the reader.

    Refused when a file does not fit its own SHA-256, or the one in the manifest, or would leave the folder that it is unpacked in. `head`:
    of the incident's chain, which binds these files.
    """
    listed: dict[str, str] = {}
    if any(name == MANIFEST for name, _ in kept):
        listed = {entry["name"]: entry["sha256"] for entry in json.loads(fetch(MANIFEST))["files"]}
    sums = []
    for name, wanted in kept:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise Refused(f"the file {name!r} would be written outside of its folder")
        content = fetch(name)
        digest = hashlib.sha256(content).hexdigest()
        if digest != wanted or listed.get(name, digest) != digest:
            raise Refused(f"{name} does not fit its SHA-256: it was changed after it was preserved")
        sums.append(f"{digest}  {name}\n")
        yield name, content
    of_head = f"{head}\n".encode()
    sums.append(f"{hashlib.sha256(of_head).hexdigest()}  {HEAD}\n")
    yield HEAD, of_head
    yield SUMS, "".join(sums).encode()
