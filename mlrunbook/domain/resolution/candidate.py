"""Path C: what each step of preparing a candidate leaves for the next, and where the candidate stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from mlrunbook.domain.cause import Cause
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.evaluation.version_comparison import Check, Decision
from mlrunbook.domain.records import Record, Recorded, SpacedTime

WAITING: Final = "waiting"
NOT_COUNTED = Confusion()


@dataclass(frozen=True)
class Outlook:
    """Where path C stands. `verdict` None: it is not the way; "waiting": for outcomes."""

    verdict: Decision | Literal["waiting"] | None
    sentence: str = ""
    version: str | None = None


@dataclass(frozen=True)
class RetrainingDecided(Recorded, key=Record.RETRAIN):
    """Train `version` on [start, end); `version` None: the known outcomes do not suffice, and `sentence` says what to do."""

    version: str | None
    sentence: str
    start: SpacedTime | None = None
    end: SpacedTime | None = None
    cause: Cause | None = None


@dataclass(frozen=True)
class Trained(Recorded, key=Record.TRAINED):
    at: SpacedTime
    version: str


@dataclass(frozen=True)
class CandidatePlan(Recorded, key=Record.CANDIDATE_PLAN):
    """The one automatic plan that registers and stages it."""

    digest: str


@dataclass(frozen=True)
class Validation(Recorded, key=Record.VALIDATION):
    """Against `compared_with`, the version that serves, on requests that training never saw. `version` None: there was nothing to train."""

    verdict: Decision
    sentence: str
    version: str | None
    checks: tuple[Check, ...] = ()
    rows: int = 0
    positives: int = 0
    champion: Confusion = NOT_COUNTED
    candidate: Confusion = NOT_COUNTED
    threshold: float | None = None
    compared_with: str | None = None

    @property
    def outlook(self) -> Outlook:
        return Outlook(self.verdict, self.sentence, self.version)


@dataclass(frozen=True)
class Shadow(Recorded, key=Record.SHADOW):
    """`passed` None: nobody waits for an answer any longer."""

    passed: bool | None
    sentence: str
    version: str
    rows: int
    positives: int
    champion: Confusion
    candidate: Confusion

    @property
    def outlook(self) -> Outlook:
        verdict = {True: Decision.PROMOTE, False: Decision.DO_NOT_PROMOTE, None: Decision.NOT_ENOUGH_EVIDENCE}[self.passed]
        return Outlook(verdict, self.sentence, self.version)


@dataclass(frozen=True)
class Candidate:
    """A retrained version fit to be promoted: why, in sentences, and the checks an approver is shown."""

    version: str
    reasons: tuple[str, ...]
    shown: tuple[str, ...] = ()
