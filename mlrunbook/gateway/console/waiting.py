"""What waits for whoever is signed in, from the store alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.review.review import IN_THE_MEETING, Drafted, Reviewed
from mlrunbook.domain.review.waiting import Me, Waiting, What, about_item, about_review, in_order, may_decide, signature_of
from mlrunbook.response.plan_state import rules_for, states_of
from mlrunbook.store import action_items, plans, records
from mlrunbook.store import waiting as store


def waits_for(conn: Connection, policy: Policy, who: Identity, *, now: datetime) -> list[Waiting]:
    """The most urgent first."""
    me = Me(who.name, who.person, who.role, Scope.APPROVE in who.scopes)
    models = who.limits.models
    found = [*_decisions(conn, policy, me, models, now=now), *_pages(conn, me, models)]
    return in_order([*found, *_reviews(conn, policy, me, models, now=now), *_items(conn, me, models, now=now)])


def _decisions(conn: Connection, policy: Policy, me: Me, models: tuple[str, ...], *, now: datetime) -> Iterator[Waiting]:
    if not me.may_decide or me.role is None:
        return
    standing = store.open_plans(conn, models)
    mine = [one for one in standing if me.role in rules_for(policy, one[0]).roles and one[0].rule is None]
    said = plans.approvals_of_incidents(conn, {plan.incident_id for plan, _, _ in mine})
    states = states_of(conn, policy, [plan for plan, _, _ in mine], now=now)
    for (plan, incident, at), state in zip(mine, states, strict=True):
        given = [row for row in said if (row.incident_id, row.plan_digest) == (plan.incident_id, plan.digest)]
        if state.waits and may_decide(me, plan.digest, given, rules_for(policy, plan), now=now):
            words = f"Decide about the {plan.kind} plan: {'; '.join(action.summary for action in plan.actions)}"
            yield Waiting(What.DECISION, incident.id, incident.model, words, f"/incidents/{incident.id}", at, incident.severity)


def _pages(conn: Connection, me: Me, models: tuple[str, ...]) -> Iterator[Waiting]:
    for paged in store.pages_to(conn, me.role, models) if me.role else ():
        one, words = paged.incident, f"Acknowledge the page: {paged.reason}"
        yield Waiting(What.PAGE, one.id, one.model, words, f"/incidents/{one.id}", paged.at, one.severity)


def _reviews(conn: Connection, policy: Policy, me: Me, models: tuple[str, ...], *, now: datetime) -> Iterator[Waiting]:
    if me.role not in {*policy.review.reviewed, *policy.review.approved}:
        return
    over = store.unapproved_reviews(conn, models)
    ids = [incident.id for incident in over]
    drafts, reviewed = records.of_incidents(conn, Drafted, ids), records.of_incidents(conn, Reviewed, ids)
    for incident in over:
        signed = reviewed.get(incident.id)
        if signature_of(me, signed, policy.review) and (draft := drafts.get(incident.id)):
            yield about_review(incident, signed=signed, blanks=draft.markdown.count(IN_THE_MEETING), now=now)


def _items(conn: Connection, me: Me, models: tuple[str, ...], *, now: datetime) -> Iterator[Waiting]:
    overdue = dict(store.overdue_items(conn, models, now=now))
    for item in action_items.of_numbers(conn, overdue):
        if me.is_owner(item.owner_role):
            yield about_item(item, overdue[item.id])
