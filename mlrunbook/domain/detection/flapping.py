"""A failure that comes back: an alert soon after the closing, and incidents that open again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.policy.alerting import RecurrencePolicy
from mlrunbook.domain.records import IsoTime, Record, Recorded, SpacedTime
from mlrunbook.domain.tally import AnyTally


def _or_none(row: Any, read: ValidatorFunctionWrapHandler) -> Triage | None:
    """What is put aside here holds up no page: the keys and times of all pages are read from this record. {}: older rows without one."""
    try:
        return read(row) if row else None
    except ValidationError:
        return None


@dataclass(frozen=True)
class Ending:
    """When an incident ended, before it was opened again."""

    resolved_at: IsoTime | None
    closed_at: IsoTime | None
    review_due_at: IsoTime | None


@dataclass(frozen=True)
class Reopened(Recorded, key=Record.REOPENED):
    """The last time that the incident was opened again. `number` counts them; `since`: when the fix that did not hold was made, or the
    incident closed; `baseline` is the one from before the first fix.

    `measured` False: an alert alone has opened it again, and triage may find that it is none. Then `before` and `triage` are what the
    incident goes back to.
    """

    number: int
    at: SpacedTime
    since: SpacedTime
    why: str
    baseline: AnyTally | None = None
    measured: bool = True
    before: Ending | None = None
    moved_s: float = 0.0  # how far the clock had been set back by then
    triage: Annotated[Triage | None, WrapValidator(_or_none)] = None


@dataclass(frozen=True)
class Flapping(Recorded, key=Record.FLAPPING):
    """The incident's automation has stopped, until a person says otherwise or nothing has opened until `quiet_at`."""

    at: IsoTime
    why: str
    quiet_at: IsoTime


@dataclass(frozen=True)
class AutomationResumed(Recorded, key=Record.FLAPPING_GO_ON):
    """A person lets automation go on although the incident flaps."""

    by: str
    at: IsoTime
    note: str = ""


def is_back(closed_at: datetime | None, now: datetime, policy: RecurrencePolicy) -> bool:
    """What closed then is not over."""
    return closed_at is not None and timedelta(0) <= now - closed_at < timedelta(minutes=policy.reopen_within_min)


def judge_flapping(openings: Sequence[datetime], now: datetime, policy: RecurrencePolicy) -> tuple[bool, str]:
    """Whether that often is flapping, and the sentence that says so. `openings` may reach back further than the window."""
    window = timedelta(minutes=policy.flapping_within_min)
    count = sum(now - window < at <= now for at in openings)
    said = f"opened {count} times within {policy.flapping_within_min} minutes, the limit is {policy.flapping_after}"
    return count > policy.flapping_after, said


def quiet_at(last_opening: datetime, policy: RecurrencePolicy) -> datetime:
    """When automation comes back by itself, if nothing opens until then."""
    return last_opening + timedelta(minutes=policy.flapping_within_min)
