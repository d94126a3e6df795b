"""What a person asks for by name: a path of step 4. It goes through the same plan, approval and journal as one that the diagnosis names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlrunbook.domain.actions import Path
from mlrunbook.domain.approval import PREFECT_FORM
from mlrunbook.domain.people import person_of
from mlrunbook.domain.records import IsoTime, Record, Recorded

# The fields of each path, beside the path itself, who asks and why. A version to train is named or left open.
_TAKES: dict[Path, tuple[str, ...]] = {
    Path.ROLLBACK: ("target_version",),
    Path.MATERIALIZE: ("views", "since", "until"),
    Path.RETRAIN: ("start_date", "end_date"),
    Path.THRESHOLD: ("threshold",),
}


@dataclass(frozen=True, kw_only=True)
class Request(Recorded, key=Record.REQUEST):
    """`threshold` None: the smallest that surely brings precision back. `since` None: where the last materialization ended; `until` None:
    now. `version` None: the next minor version."""

    path: Path
    by: str
    reason: str
    target_version: str | None = None
    threshold: float | None = None
    views: tuple[str, ...] = ()
    since: IsoTime | None = None
    until: IsoTime | None = None
    start_date: IsoTime | None = None
    end_date: IsoTime | None = None
    version: str | None = None

    def to_record(self) -> dict[str, Any]:
        """Only what the path takes."""
        row = super().to_record()
        version = ("version",) if self.version else ()
        return {name: row[name] for name in ("path", "by", "reason", *_TAKES.get(self.path, ()), *version)}

    @property
    def requested_by(self) -> tuple[str, ...]:
        """Whoever the name says, and the login of Prefect's UI, by which paths are asked for: who uses it could have typed any name."""
        return (person_of(self.by), PREFECT_FORM)

    @property
    def sentence(self) -> str:
        return f"{self.by} asks for path {self.path}"
