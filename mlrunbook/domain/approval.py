"""Does an approval cover a plan? Every check names what to do next; anything unclear is a no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mlrunbook.domain.people import person_of
from mlrunbook.domain.records import Record, Recorded

PREFECT_FORM = "prefect_form"  # the form in Prefect's UI: one login that many share
POLICY_RULE = "policy_rule"  # the door through which a named policy rule approves an automatic plan
DECISIONS = ("approved", "rejected")
CLOCKS_DIFFER = timedelta(minutes=10)  # at most, between the machine where it was given and the one that uses it


@dataclass(frozen=True)
class Decision:
    """A decision about a plan, from whom the door proved it came. `verified` False: the door cannot prove who it was. `person` is the
    person id of the token; empty: as the name says."""

    decision: str  # approved, rejected
    approver: str
    role: str | None
    door: str
    verified: bool = True
    reason: str = ""
    person: str = ""

    @property
    def counts_as(self) -> str:
        return counts_as(self.door, self.verified, self.person, self.approver)


def counts_as(door: str, verified: bool, person: str, name: str) -> str:
    """Who counts: the person, or where the door cannot prove who it was, the door itself, whatever name was typed there."""
    return (person or person_of(name)) if verified else door


@dataclass(frozen=True)
class FormAnswer(Recorded, key=Record.FORM):
    """The answer in Prefect's form. `decision` None: the run went on without one."""

    decision: str | None = None  # approved, rejected, decided_elsewhere
    name: str = ""
    comment: str = ""


@dataclass(frozen=True)
class Approval:
    """One row of the store. `approver` is a person's name, or the rule's name when the door is `policy_rule`."""

    plan_digest: str
    decision: str  # approved, rejected
    approver: str
    door: str  # cli, rest, console, prefect_form, policy_rule
    verified: bool
    at: datetime
    role: str | None = None
    expires_at: datetime | None = None
    voided_at: datetime | None = None
    voided_because: str | None = None
    ran_out: bool | None = field(
        default=None, compare=False
    )  # its minutes are over by the store's own clock; None: the store did not note when it was given
    person: str = ""  # the person id behind the token; empty: as the name says

    @property
    def counts_as(self) -> str:
        return counts_as(self.door, self.verified, self.person, self.approver)

    @property
    def persons(self) -> frozenset[str]:
        """Whoever this may be: who counts, and whoever the name says it is."""
        return frozenset({self.counts_as, person_of(self.approver)})


@dataclass(frozen=True)
class ApprovalRules:
    """`count` distinct people, each in one of `roles` (empty: any holder of an approve token). `unverified_doors` are the doors
    that policy lets in although they cannot prove who it was; `plan_rule` is the policy rule the plan itself names, if any.
    `requesters`: who asked for the plan, and therefore is not among those who approve it."""

    count: int = 1
    roles: frozenset[str] = frozenset()
    unverified_doors: frozenset[str] = frozenset()
    plan_rule: str | None = None
    requesters: frozenset[str] = frozenset()


def valid(approval: Approval, plan_digest: str, now: datetime, rules: ApprovalRules) -> tuple[bool, str]:
    """Whether this one row counts for this plan, and why. It does not count heads: see `granted`."""
    who = f"the approval of {approval.approver}"
    if approval.plan_digest != plan_digest:
        return False, f"{who} is for another plan ({approval.plan_digest[:12]}): approve {plan_digest[:12]}"
    if approval.voided_at is not None:
        return False, f"{who} is void ({approval.voided_because or 'no reason given'}): ask again"
    if approval.decision != "approved":
        return False, f"{approval.approver} {approval.decision} the plan"
    if approval.at > (now if approval.ran_out is None else now + CLOCKS_DIFFER):
        return False, f"{who} is dated in the future: check the clocks, then ask again"
    if approval.expires_at is not None and (approval.ran_out or approval.expires_at <= now):
        return False, f"{who} expired at {approval.expires_at:%H:%M} UTC: ask again"
    if approval.door == POLICY_RULE:
        if rules.plan_rule is None or approval.approver != rules.plan_rule:
            return False, f"policy rule {approval.approver} does not cover this plan: a person must approve it"
        return True, f"approved by policy rule {approval.approver}"
    if why_not := _excluded(approval, rules):
        return False, f"{who} {why_not}"
    return True, f"approved by {approval.approver} through {approval.door}" + ("" if approval.verified else " (unverified)")


def _excluded(approval: Approval, rules: ApprovalRules) -> str | None:
    """Why the yes of this person through this door does not count."""
    trusted = approval.door in rules.unverified_doors
    if not approval.verified and not trusted:
        return f"came through {approval.door}, which cannot prove who it was: use `mlrunbook incidents approve`"
    if rules.roles and approval.role not in rules.roles and not trusted:
        return f"does not count: role {approval.role or 'none'} may not approve this, {_any_of(rules.roles)} may"
    if rules.requesters & approval.persons:
        asked = approval.approver if approval.verified else f"{approval.door} or {approval.approver}"
        others = "another person" if rules.count == 1 else f"{rules.count} other people"
        return f"does not count: {asked} asked for this plan, {others} must approve it (not_by_requester)"
    return None


def granted(approvals: Sequence[Approval], plan_digest: str, now: datetime, rules: ApprovalRules) -> tuple[bool, str]:
    """Whether the plan may be carried out: enough distinct people said yes and nobody said no to exactly this plan.

    A rejection comes from anyone whose yes would count; it holds until it is voided or the plan changes.
    """
    mine = [a for a in approvals if a.plan_digest == plan_digest and a.voided_at is None]
    for row in mine:
        if row.decision != "approved" and is_entitled(row, rules):
            return False, f"{row.approver} {row.decision} the plan"
    checked = [(row, *valid(row, plan_digest, now, rules)) for row in mine]
    yes = [(row, sentence) for row, counts, sentence in checked if counts]
    if any(row.door == POLICY_RULE for row, _ in yes):
        return True, next(sentence for row, sentence in yes if row.door == POLICY_RULE)
    people = _people(yes)
    if len(people) >= rules.count:
        return True, "; ".join(people.values())
    problems = [sentence for _, counts, sentence in checked if not counts]
    need = f"{len(people)} of {rules.count} approvals for plan {plan_digest[:12]}"
    return False, "; ".join([need, *problems])


def _people(yes: Sequence[tuple[Approval, str]]) -> dict[str, str]:
    """One entry a person. Whose id is another's name is the same: of a token that was made without an id, and from a sign-in provider. A
    name typed at a door that proves nothing adds nobody when its owner, by person id or by name, has said yes where it was proven."""
    people: dict[str, str] = {}
    counted: list[Approval] = []
    for row, sentence in (one for one in yes if one[0].verified):
        if not any(row.counts_as in other.persons or other.counts_as in row.persons for other in counted):
            people[row.counts_as] = sentence
        counted.append(row)
    proven = frozenset[str]().union(*(row.persons for row in counted))
    typed = {row.counts_as: sentence for row, sentence in yes if not row.verified and person_of(row.approver) not in proven}
    return people | typed


def is_entitled(row: Approval, rules: ApprovalRules) -> bool:
    """Whether a yes of this person through this door would count."""
    known = row.verified or row.door in rules.unverified_doors
    return known and (not rules.roles or row.role in rules.roles or row.door in rules.unverified_doors)


def _any_of(roles: frozenset[str]) -> str:
    return " or ".join(sorted(roles))
