"""The manifest of an evidence bundle: every file with its size and SHA-256, what could not be read, and what was blacked out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class File:
    """`removed`: how many secrets were blacked out of it before it was kept."""

    name: str
    content: bytes
    media_type: str
    removed: int = 0

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """`missing`: name -> why it could not be read."""

    files: Sequence[File]
    missing: Mapping[str, str] = field(default_factory=dict)


def manifest(incident_id: str, bundle: Bundle, *, taken_at: datetime) -> bytes:
    """manifest.json: the same bundle gives the same bytes."""
    body = {
        "incident": incident_id,
        "takenAt": taken_at.isoformat(),
        "files": [
            {"name": f.name, "bytes": len(f.content), "sha256": f.sha256, "mediaType": f.media_type, "secretsRemoved": f.removed}
            for f in sorted(bundle.files, key=lambda f: f.name)
        ],
        "missing": [{"name": name, "why": why} for name, why in sorted(bundle.missing.items())],
    }
    return json.dumps(body, indent=1, ensure_ascii=False).encode()


def faults(manifest_: bytes, kept: Mapping[str, str], *, digest: str) -> list[str]:
    """What does not fit: `kept` is the SHA-256 of each file as it is now, by name; `digest` the manifest's own, from the timeline.

    Files that the manifest does not name were added later and are no fault.
    """
    if hashlib.sha256(manifest_).hexdigest() != digest:
        return [f"{MANIFEST} is not the one whose SHA-256 is on the timeline"]
    wrong = []
    for entry in json.loads(manifest_)["files"]:
        now = kept.get(entry["name"])
        if now is None:
            wrong.append(f"{entry['name']} is gone")
        elif now != entry["sha256"]:
            wrong.append(f"{entry['name']} was changed")
    return wrong
