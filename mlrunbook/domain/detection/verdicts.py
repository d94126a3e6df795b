"""What an alert would do, in words for people, where nobody has asked what came before it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.detection.silences import quiet
from mlrunbook.domain.policy.policy import Policy


class Outcome(StrEnum):
    OPEN = "open"
    END = "end"
    SILENCE = "silence"
    CHANGE = "change"
    NOTE = "note"
    IGNORE = "pass over"
    QUARANTINE = "quarantine"


@dataclass(frozen=True)
class Verdict:
    """`happens` completes "it ...": "opens an incident on pumps"."""

    outcome: Outcome
    happens: str


def verdict(alert: NormalisedAlert, policy: Policy, *, now: datetime) -> Verdict:
    """Of one alert that can be used. What is open, and what came before, only the store knows: both ways are said."""
    if not alert.firing:
        return Verdict(Outcome.END, "ends the alert of this identity where one fires: a line on its incident's timeline; opens nothing")
    type_ = alert.type(policy)
    if held := quiet(alert.model, alert.name, type_, now, policy.silences, policy.maintenance):
        return Verdict(Outcome.SILENCE, f"is counted and opens nothing until {held.until:%Y-%m-%d %H:%M} UTC: {held.sentence}")
    family = policy.family_of(type_).replace("_", " ")
    return Verdict(
        Outcome.OPEN,
        f"opens an incident on {alert.model}, unless one for {family} is open: then it joins that. "
        "A repeat is counted; it pages again if it got worse",
    )
