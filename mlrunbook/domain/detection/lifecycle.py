"""What an incident and its runs leave of their life for later runs."""

from __future__ import annotations

from dataclasses import dataclass

from mlrunbook.domain.records import Record, Recorded, SpacedTime


@dataclass(frozen=True)
class OpenedBy(Recorded, key=Record.OPENED_BY):
    """By the run that its key names. `new`: else it has joined the incident."""

    new: bool


@dataclass(frozen=True)
class Stopped(Recorded, key=Record.STOPPED):
    """Why a run went no further without a human."""

    reason: str


@dataclass(frozen=True)
class Shown(Recorded, key=Record.SHOWN):
    """On a run page: the key names the run, the artifact and its content."""

    at: SpacedTime


@dataclass(frozen=True)
class UnknownModel(Recorded, key=Record.UNKNOWN_MODEL):
    """Neither the registry nor policy names the incident's model. `why` says so to people, with what was probably meant. `sender`: whose
    alert has opened it, as its budget is kept; "" where a person has."""

    at: SpacedTime
    why: str
    by: str
    sender: str = ""


@dataclass(frozen=True)
class Recognised(Recorded, key=Record.RECOGNISED):
    """It was unknown, and is known since. `number` counts how often; `moved_s`: how far the clock had been set back by then."""

    number: int
    at: SpacedTime
    moved_s: float = 0.0
