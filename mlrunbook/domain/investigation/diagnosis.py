"""What probably caused the incident, and which path of Step 4 answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from mlrunbook.domain.actions import Path
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.communication.messages import Figures
from mlrunbook.domain.investigation.causes.case_file import CaseFile, Line
from mlrunbook.domain.investigation.causes.definition import Repair
from mlrunbook.domain.investigation.causes.registry import DEFINITIONS, definition_of
from mlrunbook.domain.investigation.facts import DiagnosisFacts
from mlrunbook.domain.investigation.findings import Finding
from mlrunbook.domain.records import Record, Recorded

BAR = 0.5  # below this a cause is a lead for a person, not a diagnosis


@dataclass(frozen=True)
class ScoredCause:
    """`supports` and `against` are the sentences behind the score; `open` what could not be checked."""

    cause: Cause
    score: float
    supports: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    open: tuple[str, ...] = ()

    @property
    def explained(self) -> str:
        """The score with everything it rests on, for people."""
        parts = {"for": self.supports, "against": self.against, "not known": self.open}
        said = [f"{word}: {'; '.join(lines)}" for word, lines in parts.items() if lines]
        return f"{self.cause.replace('_', ' ')} {self.score:.2f} ({'. '.join(said)})"


@dataclass(frozen=True)
class Diagnosis:
    """`path` None: no safe automatic path; `sentence` then says what a person should look at. `chain` seeds the 5 whys.

    `headline` is the short form for pages and notices; `began_at` when the cause set in, where a change is the cause.
    """

    causes: tuple[ScoredCause, ...]
    path: Path | None
    chain: tuple[str, ...]
    sentence: str
    headline: str
    began_at: datetime | None = None
    target_version: str | None = None
    target_threshold: float | None = None
    target_revision: int | None = None  # of the rollout history
    repair: Repair | None = None
    advice: str = ""  # the end of `sentence`: what follows from it
    objection: str | None = None  # what speaks against a target that a person has asked for: whoever decides reads it first

    @property
    def top(self) -> ScoredCause:
        return self.causes[0]

    @property
    def leads(self) -> tuple[ScoredCause, ...]:
        """The three best causes that are not ruled out."""
        return tuple(c for c in self.causes if c.score > 0)[:3]


@dataclass(frozen=True)
class Lead:
    cause: Cause
    explained: str


@dataclass(frozen=True)
class Diagnosed(Recorded, key=Record.DIAGNOSIS):
    """The diagnosis as later steps, the API and the review read it. `figures`: what was measured then."""

    cause: Cause
    path: Path | None = None
    sentence: str = ""
    headline: str = ""
    chain: tuple[str, ...] = ()
    target_version: str | None = None
    target_threshold: float | None = None
    target_revision: int | None = None
    repair: Repair | None = None
    causes: tuple[ScoredCause, ...] = ()
    leads: tuple[Lead, ...] = ()
    figures: Figures | None = None

    @classmethod
    def of(cls, diagnosis: Diagnosis, figures: Figures) -> Diagnosed:
        return cls(
            cause=diagnosis.top.cause,
            path=diagnosis.path,
            sentence=diagnosis.sentence,
            headline=diagnosis.headline,
            chain=diagnosis.chain,
            target_version=diagnosis.target_version,
            target_threshold=diagnosis.target_threshold,
            target_revision=diagnosis.target_revision,
            repair=diagnosis.repair,
            causes=diagnosis.causes,
            leads=tuple(Lead(c.cause, c.explained) for c in diagnosis.leads),
            figures=figures,
        )


def diagnose(findings: Sequence[Finding], facts: DiagnosisFacts, now: datetime) -> Diagnosis:
    """Rank the causes and pick the path. `now` only words how long ago things happened."""
    file = CaseFile({f.key: f for f in findings}, facts, now)
    file = replace(file, lines_of={one.cause: lines for one in DEFINITIONS if (lines := one.evidence(file))})
    causes = sorted((_score(cause, lines) for cause, lines in file.lines_of.items()), key=lambda c: -round(c.score, 6))
    if causes[0].score < BAR:
        causes.insert(0, ScoredCause(Cause.UNKNOWN, 0.0, ("no cause is supported well enough to act on",)))
    top = causes[0]
    found = definition_of(top.cause)
    headline = found.headline.format(version=facts.suspect_version or "the serving version")
    short = f"{headline}: {'; '.join(top.supports[:1])}"
    if facts.degraded and facts.degraded_words not in short:
        short += f"; {facts.degraded_words}"
    remedy = found.remedy(file)
    return Diagnosis(
        tuple(causes),
        remedy.path,
        found.whys(file),
        f"{headline}: {'; '.join(top.supports)}. {remedy.advice}",
        short,
        began_at=found.began_at(file),
        target_version=remedy.version,
        target_threshold=remedy.threshold,
        target_revision=remedy.revision,
        repair=remedy.repair,
        advice=remedy.advice,
    )


def _score(cause: Cause, lines: Sequence[Line]) -> ScoredCause:
    score = sum(line.weight for line in lines if line.holds) / sum(line.weight for line in lines)
    if any(line.required and line.holds is None for line in lines):
        score = min(score, BAR - 0.1)
    if any(line.required and line.holds is False for line in lines):
        score = 0.0

    def said(holds: bool | None) -> tuple[str, ...]:
        return tuple(line.sentence for line in lines if line.holds is holds)

    return ScoredCause(cause, round(score, 3), said(True), said(False), said(None))
