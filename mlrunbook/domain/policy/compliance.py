"""Policy: the deadlines that laws set for telling an authority."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from pydantic import Field

from mlrunbook.domain.incident import Case, Severity, Subtype

Hours = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class RegulatoryPolicy:
    """How long the clocks run, from awareness on, in hours, and what starts them.

    GDPR, Regulation (EU) 2016/679, Art. 33(1): a breach of personal data is notified "without undue delay and, where feasible, not later
    than 72 hours after having become aware of it", unless a risk to people is unlikely.
    AI Act, Regulation (EU) 2024/1689, Art. 73, serious incidents of high-risk systems (Art. 3(49)): at once when the causal link is
    established or reasonably likely, and "not later than 15 days" after becoming aware (2); for a widespread infringement or a serious
    and irreversible disruption of critical infrastructure (Art. 3(49)(b)) not later than two days (3); for a death not later than ten (4).
    An incomplete report may come first (5).

    `ai_act_subtypes` may infringe rights (Art. 3(49)(c)) however severe they are; any other but an audit failure may be serious from
    `ai_act_from` on. Reminders go out `remind_before_h` before each deadline, at it, and then every `overdue_every_h`.
    """

    gdpr_h: Hours = 72
    ai_act_h: Hours = 360
    ai_act_critical_infrastructure_h: Hours = 48
    ai_act_widespread_h: Hours = 48
    ai_act_death_h: Hours = 240
    gdpr_subtypes: frozenset[Subtype] = frozenset({Subtype.DATA_LEAKAGE, Subtype.PRIVACY_BREACH})
    ai_act_subtypes: frozenset[Subtype] = frozenset({Subtype.DATA_LEAKAGE, Subtype.PRIVACY_BREACH, Subtype.REGULATORY_VIOLATION})
    ai_act_from: Severity = Severity.HIGH
    remind_before_h: tuple[Hours, ...] = (168, 72, 48, 24, 12, 4, 1)
    overdue_every_h: Hours = 24

    def span(self, case: Case) -> timedelta:
        hours = {
            Case.PERSONAL_DATA: self.gdpr_h,
            Case.GENERAL: self.ai_act_h,
            Case.CRITICAL_INFRASTRUCTURE: self.ai_act_critical_infrastructure_h,
            Case.WIDESPREAD: self.ai_act_widespread_h,
            Case.DEATH: self.ai_act_death_h,
        }[case]
        return timedelta(hours=hours)
