"""What was done about the failure: the approved plan was carried out, or a person says that they have fixed it."""

from __future__ import annotations

from dataclasses import dataclass

from mlrunbook.domain.actions import Path
from mlrunbook.domain.elapsed import Elapsed
from mlrunbook.domain.records import IsoTime, Record, Recorded, SpacedTime


@dataclass(frozen=True)
class Applied(Recorded, key=Record.APPLIED):
    """Every change of the plan was read back at `at`; `counted` is the same moment by what passes."""

    at: SpacedTime
    path: Path
    counted: Elapsed | None = None

    @property
    def stored_at(self) -> str:
        """As the row has it: keys are built from it."""
        return str(self.at)


@dataclass(frozen=True)
class HumanResolution(Recorded, key=Record.HUMAN_RESOLUTION):
    by: str
    what: str
    at: IsoTime
    root_cause: str | None = None
    counted: Elapsed | None = None

    @property
    def stored_at(self) -> str:
        """As the row has it: keys are built from it."""
        return self.at.isoformat()

    @property
    def said(self) -> dict[str, str | None]:
        """Without the moment: the same words again are no news."""
        return {"by": self.by, "what": self.what, "root_cause": self.root_cause}

    @property
    def words(self) -> str:
        return f"{self.what} ({self.by})"


Fix = Applied | HumanResolution
