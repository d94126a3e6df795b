"""What a visitor may do to an incident now, and where not, why not in one sentence.

The page of an incident offers what is possible, and each act's own page says the same. It looks ahead and decides nothing: the act itself
is checked once more when it is done, and its answer counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection

from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.containment.orders import Ordered, OrderState
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.incident import TRANSITIONS, Incident, Severity, Status
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.resolution.deciding import Standing
from mlrunbook.domain.roles import Role
from mlrunbook.gateway.closing import is_open_end
from mlrunbook.response.communication import reports
from mlrunbook.response.execution import standing_orders
from mlrunbook.response.lifecycle import flapping, unknown_models
from mlrunbook.response.plan_state import rules_for, state_of
from mlrunbook.response.review.closing import left_in_force
from mlrunbook.store import journal, plans, records, timeline


class Act(StrEnum):
    """The value is the last part of the path of its page: /incidents/{id}/{act}."""

    ACKNOWLEDGE = "acknowledge"
    APPROVE = "approve"
    REJECT = "reject"
    CONTAIN = "contain"
    REVERSE = "reverse"
    RESOLVE = "resolve"
    CLOSE = "close"
    HAND_OVER = "handover"
    SEVERITY = "severity"
    GO_ON = "go-on"

    @property
    def words(self) -> str:
        """As its button says it."""
        return _BUTTONS[self]

    @property
    def scope(self) -> Scope:
        return Scope.APPROVE if self in (Act.APPROVE, Act.REJECT, Act.CONTAIN, Act.REVERSE) else Scope.OPERATE


_BUTTONS = {
    Act.ACKNOWLEDGE: "Acknowledge",
    Act.APPROVE: "Approve",
    Act.REJECT: "Reject",
    Act.CONTAIN: "Contain",
    Act.REVERSE: "Reverse containment",
    Act.RESOLVE: "It is fixed",
    Act.CLOSE: "Close",
    Act.HAND_OVER: "Hand over",
    Act.SEVERITY: "Change severity",
    Act.GO_ON: "Resume automation",
}


@dataclass(frozen=True)
class Possible:
    """One act. `why_not` empty: it may be done now. `digest`: of which plan, for a decision. `note`: in which way alone."""

    act: Act
    why_not: str = ""
    digest: str = ""
    note: str = ""

    @property
    def is_possible(self) -> bool:
        return not self.why_not

    def path(self, incident_id: str) -> str:
        return f"/incidents/{incident_id}/{self.act}" + (f"?plan={self.digest}" if self.digest else "")


@dataclass(frozen=True)
class Asked:
    """A plan that stands, as far as deciding about it goes. `yes_of` and `no_of`: the persons who have said so, `requesters` those whose
    yes does not count."""

    digest: str
    kind: PlanKind
    standing: Standing
    begun: bool
    waits: bool
    roles: frozenset[str]
    count: int = 1
    yes_of: frozenset[str] = frozenset()
    no_of: frozenset[str] = frozenset()
    requesters: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Case:
    """An incident as far as acting on it goes. `answered_by`: who has it since it was opened (again). `in_force`: containment that is
    neither taken back nor kept with a reason, `ordered`: what people have ordered and is not done. `closes_itself`: the recovery is
    measured, and nobody has reported anything since."""

    incident: Incident
    contain_roles: frozenset[str] = frozenset()
    isolation_roles: frozenset[str] = frozenset()
    answered_by: str | None = None
    model_is_unknown: bool = False
    automation_held: bool = False
    asked: tuple[Asked, ...] = ()
    in_force: tuple[str, ...] = ()
    ordered: tuple[str, ...] = ()
    underway: tuple[str, ...] = ()
    unsettled: tuple[str, ...] = ()
    isolated_for: str | None = None
    isolated_here: bool = False
    closes_itself: bool = False


def possible(case: Case, who: Identity) -> tuple[Possible, ...]:
    """Every act, in the order of the page; of the decisions one for each plan that is not over."""
    found: list[Possible] = [Possible(Act.ACKNOWLEDGE, _first(_over(case), _lacks(Act.ACKNOWLEDGE, who), _has_it(case, who)))]
    for asked in case.asked:
        found += decisions(case, asked, who)
    for act, why_not in _others(case, who):
        found.append(Possible(act, why_not, note=_only_as_false_alarm(case) if act is Act.CLOSE and not why_not else ""))
    return tuple(found)


def of(found: Sequence[Possible], act: Act, digest: str = "") -> Possible:
    """The one act among them; of a decision the one about that plan, by the beginning of its digest."""
    mine = [one for one in found if one.act is act and one.digest.startswith(digest)]
    return mine[0] if mine else Possible(act, "No plan waits for a decision.", digest)


def decisions(case: Case, asked: Asked, who: Identity) -> Iterator[Possible]:
    """Yes and no to one plan."""
    if asked.waits or (asked.standing is Standing.APPROVED and not asked.begun):
        yes = _first(_over(case), _lacks(Act.APPROVE, who), _no_yes(asked, who))
        no = _first(_over(case), _lacks(Act.REJECT, who), _no_no(asked, who))
        yield Possible(Act.APPROVE, yes, asked.digest)
        yield Possible(Act.REJECT, no, asked.digest)


def _others(case: Case, who: Identity) -> Iterator[tuple[Act, str]]:
    over, contain, kept = _over(case), _roles_lack(case.contain_roles, who), _unplanned(case)
    yield Act.CONTAIN, _first(over, _lacks(Act.CONTAIN, who), contain, kept, _isolated(case), _resolved(case))
    nothing = "" if case.in_force or case.ordered else "Nothing is in force or ordered."
    yield Act.REVERSE, _first(over, nothing, _lacks(Act.REVERSE, who), contain, kept, _isolated(case), _resolved(case))
    yield Act.RESOLVE, _first(over, _lacks(Act.RESOLVE, who), kept, _resolved(case))
    yield Act.CLOSE, _first(over, _lacks(Act.CLOSE, who), _not_closing(case, who))
    yield Act.HAND_OVER, _first(over, _lacks(Act.HAND_OVER, who))
    yield Act.SEVERITY, _first(over, _lacks(Act.SEVERITY, who))
    stopped = "" if case.automation_held else "Automation has not stopped."
    yield Act.GO_ON, _first(over, stopped, _lacks(Act.GO_ON, who))


def _first(*reasons: str) -> str:
    return next((one for one in reasons if one), "")


def _over(case: Case) -> str:
    status = case.incident.status
    return "" if status.is_open else f"The incident is over ({status.replace('_', ' ')}): report it again if the trouble is back."


def _lacks(act: Act, who: Identity) -> str:
    return "" if act.scope in who.scopes else f"You have no right to {act.scope} here: sign in as somebody who has."


def _roles_lack(roles: frozenset[str], who: Identity) -> str:
    if not roles or who.role in roles:
        return ""
    yours = f"you are {Role.named(who.role)}" if who.role else "you have no role"
    return f"{_any_of(roles)} decides this; {yours}."


def _any_of(roles: frozenset[str]) -> str:
    names = [role.words for role in Role if role in roles] or sorted(roles)
    return " or ".join(names)


def _has_it(case: Case, who: Identity) -> str:
    return "You have acknowledged it." if case.answered_by == who.name else ""


def _unplanned(case: Case) -> str:
    return (
        "Nobody knows this model, so nothing is changed for it: close the incident, or register the model." if case.model_is_unknown else ""
    )


def _isolated(case: Case) -> str:
    if case.isolated_for is None:
        return ""
    return f"The model is isolated for {case.isolated_for} and is evidence: {_any_of(case.isolation_roles)} decides how it goes on."


def _resolved(case: Case) -> str:
    return "It is resolved: report it again if the trouble is back." if case.incident.status is Status.RESOLVED else ""


def _no_yes(asked: Asked, who: Identity) -> str:
    if asked.standing is Standing.APPROVED:
        return "It is approved: the run carries it out."
    if who.person in asked.yes_of:
        return f"You have approved it; it takes {asked.count} people."
    if lacks := _roles_lack(asked.roles, who):
        return lacks
    return "You asked for it, so somebody else must approve it." if who.person in asked.requesters else ""


def _no_no(asked: Asked, who: Identity) -> str:
    if asked.begun:
        return "It has begun: reverse it instead."
    return "You have rejected it." if who.person in asked.no_of else _roles_lack(asked.roles, who)


def _not_closing(case: Case, who: Identity) -> str:
    """Why no way of closing is open: as resolved, for a reason, as a false alarm, with its containment kept."""
    if case.isolated_here and who.role not in case.isolation_roles:
        return f"The model is isolated: {_any_of(case.isolation_roles)} may close it and leave it so."
    if case.underway:
        return f"Ordered and not in force yet: {'; '.join(case.underway)}. Wait for it, or reverse it."
    if case.unsettled:
        return f"It is not known yet whether this happened: {'; '.join(case.unsettled)}."
    if case.in_force and not case.isolated_here and who.role not in case.contain_roles:
        return f"Containment is in force: reverse it first, or let {_any_of(case.contain_roles)} close it and keep it."
    if _only_by_measuring(case) and Status.FALSE_ALARM not in TRANSITIONS[case.incident.status]:
        return "The recovery check closes it once it has measured the recovery."
    return ""


def _only_by_measuring(case: Case) -> bool:
    one = case.incident
    handed_over = case.isolated_here or bool(case.in_force)  # who may keep it may also end the incident with it
    return case.closes_itself and one.status is not Status.RESOLVED and one.severity is not Severity.LOW and not handed_over


def _only_as_false_alarm(case: Case) -> str:
    return "As a false alarm only: else the recovery check closes it." if _only_by_measuring(case) else ""


# --- from the store


def case_of(conn: Connection, policy: Policy, incident: Incident, *, now: datetime) -> Case:
    """Reads alone; holds no row."""
    policy = policy.for_model(incident.model)
    orders = standing_orders.of_incident(conn, policy, incident.id, incident.model, now=now)
    rows = journal.of_incident(conn, incident.id)
    triage = records.recall_if_readable(conn, incident.id, Triage)
    measured = triage is not None and triage.figures.f1_now is not None
    return Case(
        incident,
        contain_roles=frozenset(map(str, policy.approvals.emergency.roles)),
        isolation_roles=frozenset(map(str, policy.approvals.isolation.roles)),
        answered_by=_answered_by(conn, incident),
        model_is_unknown=unknown_models.is_unknown(conn, incident.id),
        automation_held=flapping.automation_held(conn, incident.id, now=now) is not None,
        asked=tuple(_asked(conn, policy, incident.id, now=now)),
        in_force=tuple(row.summary for row in left_in_force(conn, incident.id)),
        ordered=tuple(_summary(one) for one in orders if one.state.is_open),
        underway=tuple(_summary(one) for one in orders if one.state in (OrderState.REQUESTED, OrderState.IN_PROGRESS)),
        unsettled=tuple(row.summary for row in rows if is_open_end(row)),
        isolated_for=journal.isolating(conn, incident.model),
        isolated_here=any(row.kept_because is None for row in journal.isolations(conn, incident.id)),
        closes_itself=measured and not reports.unanswered(conn, incident.id),
    )


def _asked(conn: Connection, policy: Policy, incident_id: str, *, now: datetime) -> Iterator[Asked]:
    for plan in plans.standing(conn, incident_id, *PlanKind):
        state, rules = state_of(conn, policy, plan, now=now), rules_for(policy, plan)
        said = [row for row in plans.approvals_of(conn, incident_id, plan.digest) if row.voided_at is None]
        lasts = [row for row in said if not row.ran_out and (row.expires_at is None or row.expires_at > now)]
        yield Asked(
            plan.digest,
            plan.kind,
            state.standing,
            state.begun,
            state.waits,
            rules.roles,
            rules.count,
            yes_of=frozenset(row.counts_as for row in lasts if row.decision == "approved"),
            no_of=frozenset(row.counts_as for row in said if row.decision == "rejected"),
            requesters=rules.requesters,
        )


def _answered_by(conn: Connection, incident: Incident) -> str | None:
    said = timeline.of_kind(conn, incident.id, "acknowledged", after=timeline.began(conn, incident.id))
    return incident.acknowledged_by if said else None


def _summary(one: Ordered) -> str:
    return standing_orders.summary_of(one.plan)
