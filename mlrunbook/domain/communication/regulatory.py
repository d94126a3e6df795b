"""The clocks that the law starts: until when an authority must be told, and when people are reminded of it.

This is an aid to remember, not legal advice: whether a duty exists, when it began and what ends it, people decide.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.incident import Case, ClockName, Severity, Subtype
from mlrunbook.domain.policy.compliance import RegulatoryPolicy
from mlrunbook.domain.records import Record, Recorded, SpacedTime

NOT_ADVICE = "not legal advice"


@dataclass(frozen=True)
class Statement:
    """A person's classification of the incident under a law, and since when it is known; `aware_at` None: unchanged."""

    case: Case
    by: str
    aware_at: datetime | None = None


@dataclass(frozen=True)
class Notification:
    """A person's word that ends a clock: when the authority was notified (`reference`), or why nobody need be. `at` None: now."""

    by: str
    reference: str = ""
    not_required: str = ""
    at: datetime | None = None


CASES = {
    ClockName.GDPR: (Case.PERSONAL_DATA,),
    ClockName.AI_ACT: (Case.GENERAL, Case.CRITICAL_INFRASTRUCTURE, Case.WIDESPREAD, Case.DEATH),
}
_LAW = {
    Case.PERSONAL_DATA: "GDPR Art. 33(1)",
    Case.GENERAL: "EU AI Act Art. 73(2)",
    Case.CRITICAL_INFRASTRUCTURE: "EU AI Act Art. 73(3)",
    Case.WIDESPREAD: "EU AI Act Art. 73(3)",
    Case.DEATH: "EU AI Act Art. 73(4)",
}
_WHOM = {ClockName.GDPR: "the data protection authority", ClockName.AI_ACT: "the market surveillance authority"}


@dataclass(frozen=True)
class Clock(Recorded, key=Record.CLOCK):
    """One deadline of one incident, until a person has recorded the notification (`reference`) or why none is needed (`not_required`)."""

    name: ClockName
    case: Case
    aware_at: SpacedTime
    deadline: SpacedTime
    why: str
    ended_at: SpacedTime | None = None
    ended_by: str | None = None
    reference: str = ""
    not_required: str = ""

    @property
    def law(self) -> str:
        return _LAW[self.case]

    @property
    def runs(self) -> bool:
        return self.ended_at is None

    def left(self, now: datetime) -> timedelta:
        """Negative when it is over the deadline."""
        return self.deadline - now

    def sentence(self, now: datetime) -> str:
        """What people read, with the time left."""
        if self.ended_at is not None:
            at = f"{self.ended_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            if self.not_required:
                return f"{self.law}: no notification needed, says {self.ended_by} at {at}: {self.not_required}"
            late = f", {_span(self.ended_at - self.deadline)} late" if self.ended_at > self.deadline else ""
            return f"{self.law}: {_WHOM[self.name]} was notified at {at}{late} by {self.ended_by}, reference {self.reference}"
        left = self.left(now)
        words = f"{_span(left)} left" if left > timedelta(0) else "due now" if not left else f"overdue by {_span(-left)}"
        return f"{self.law}: notify {_WHOM[self.name]} by {self.deadline.astimezone(UTC):%Y-%m-%d %H:%M} UTC, {words} ({NOT_ADVICE})"


def clocks_for(
    kinds: Collection[Subtype], severity: Severity, aware_at: datetime, policy: RegulatoryPolicy, *, what: str
) -> tuple[Clock, ...]:
    """The clocks of a security or compliance incident. Awareness is its detection, the earliest moment that can be meant. A kind that is
    not known starts them all: a person says which one is not needed, and a deadline that nobody saw cannot be got back."""

    def due() -> Iterator[Clock]:
        if not kinds or set(kinds) & policy.gdpr_subtypes:
            why = f"{what}: personal data may be concerned"
            yield start(ClockName.GDPR, Case.PERSONAL_DATA, aware_at, policy, why=why)
        grave = severity.at_least(policy.ai_act_from) and set(kinds) - {Subtype.AUDIT_FAILURE}
        if not kinds or set(kinds) & policy.ai_act_subtypes or grave:
            yield start(ClockName.AI_ACT, Case.GENERAL, aware_at, policy, why=f"{what}: it may be a serious incident")

    return tuple(due())


def start(name: ClockName, case: Case, aware_at: datetime, policy: RegulatoryPolicy, *, why: str) -> Clock:
    """Raises Invalid when the law of this clock knows no such case."""
    if case not in CASES[name]:
        raise Invalid(f"the {name} clock knows {', '.join(CASES[name])}, not {case}", field="case")
    return Clock(name, case, aware_at, aware_at + policy.span(case), why)


def ended(clock: Clock, said: Notification, now: datetime) -> Clock:
    """With the person's word on it. Raises Invalid without a reference or a reason, or with both."""
    at = said.at or now
    if bool(said.reference) == bool(said.not_required):
        raise Invalid("say the reference of the notification, or why none is required: exactly one of them", field="reference")
    if at < clock.aware_at:
        raise Invalid(f"a notification at {at:%Y-%m-%d %H:%M} is before the awareness at {clock.aware_at:%Y-%m-%d %H:%M}", field="at")
    return replace(clock, ended_at=at, ended_by=said.by, reference=said.reference, not_required=said.not_required)


def next_reminder(clock: Clock, after: datetime, policy: RegulatoryPolicy) -> datetime | None:
    """The next moment later than `after` at which people are reminded; None once a person has ended the clock."""
    if not clock.runs:
        return None
    planned = [clock.deadline - timedelta(hours=h) for h in policy.remind_before_h] + [clock.deadline]
    coming = [at for at in planned if at > after and at > clock.aware_at]
    if coming:
        return min(coming)
    every = timedelta(hours=policy.overdue_every_h)
    return clock.deadline + every * ((after - clock.deadline) // every + 1)


def _span(span: timedelta) -> str:
    """The two largest of days, hours, minutes and seconds."""
    minutes, seconds = divmod(int(span.total_seconds()), 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days or hours:
        return f"{days} d {hours} h" if days else f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
