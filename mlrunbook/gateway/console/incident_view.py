"""One incident as its page shows it. Values in, frozen dataclasses out: nothing here reads the store or a clock."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mlrunbook.domain.action_state import ActionState
from mlrunbook.domain.actions import Action, Plan, Promote, RollBack, RouteTraffic
from mlrunbook.domain.communication.durations import in_words
from mlrunbook.domain.containment.orders import Ordered, OrderState
from mlrunbook.domain.incident import Incident
from mlrunbook.domain.investigation.findings import CHECKLIST, Finding, State
from mlrunbook.domain.resolution.deciding import PlanState, Standing
from mlrunbook.domain.resolution.plan import OBJECTION
from mlrunbook.domain.resolution.plan_page import NUMBERS
from mlrunbook.domain.roles import Role
from mlrunbook.gateway.console.possible import Act, Possible
from mlrunbook.store.journal import Row
from mlrunbook.store.plans import StoredApproval

ALSO_DATED = timedelta(hours=20)  # what is older is shown with its day


@dataclass(frozen=True)
class When:
    """A moment: for machines, and for people as a time and how long ago that was."""

    iso: str
    text: str
    ago: str = ""

    @classmethod
    def of(cls, at: datetime, now: datetime | None = None) -> When:
        """Without `now` with its day and seconds, as a list of what happened needs it."""
        at = at.astimezone(UTC)
        if now is None:
            return cls(at.isoformat(), f"{at.day} {at:%b %H:%M:%S}")
        text = f"{at:%H:%M} UTC" if abs(now - at) < ALSO_DATED else f"{at.day} {at:%b %Y %H:%M} UTC"
        ago = f"{in_words(now - at)} ago" if at <= now else f"in {in_words(at - now)}"
        return cls(at.isoformat(), text, ago)


@dataclass(frozen=True)
class Answer:
    """Whether somebody has it. `state`: answered, due, late, or over where that no longer matters."""

    state: str
    sentence: str
    due: When


def answer_of(incident: Incident, answered_by: str | None, due_at: datetime, now: datetime) -> Answer:
    due = When.of(due_at, now)
    if answered_by:
        when = f" since {When.of(incident.acknowledged_at, now).text}" if incident.acknowledged_at else ""
        return Answer("answered", f"{answered_by} has it{when}.", due)
    if not incident.status.is_open:
        return Answer("over", "Nobody acknowledged it.", due)
    if due_at <= now:
        return Answer("late", f"Nobody has acknowledged it. A response was due at {due.text}, {due.ago}.", due)
    return Answer("due", f"Nobody has acknowledged it. A response is due at {due.text}, {due.ago}.", due)


@dataclass(frozen=True)
class Quote:
    by: str
    words: str
    at: When | None = None


@dataclass(frozen=True)
class Change:
    """One action of a plan: what, and from what to what by name."""

    summary: str
    values: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class PlanView:
    """A plan as its approver reads it. `waits`: for a person's decision; `who`: whose, and how many."""

    digest: str
    kind: str
    standing: str
    why: str
    waits: bool
    changes: tuple[Change, ...]
    reasons: tuple[str, ...]
    objection: str
    expected: str
    tried: tuple[str, ...]
    shown: tuple[str, ...]
    doubts: tuple[str, ...]
    numbers: tuple[tuple[str, str], ...]
    who: str
    said: tuple[Quote, ...]
    approve: Possible
    reject: Possible

    @property
    def short(self) -> str:
        return self.digest[:12]


@dataclass(frozen=True)
class Rule:
    """Who may decide about a kind of plan."""

    roles: Collection[str]
    count: int
    rule: str | None = None

    @property
    def sentence(self) -> str:
        if self.rule:
            return f"Policy rule {self.rule} approves it."
        names = " or ".join(role.words for role in Role if role in self.roles)
        return f"{names} decides." if self.count == 1 else f"{self.count} of these decide: {names}."


def plan_view(
    state: PlanState, rule: Rule, said: Sequence[StoredApproval], acts: Sequence[Possible], *, serving: str | None, now: datetime
) -> PlanView:
    plan, facts = state.plan, state.plan.facts
    about = [f"Against it: {one}" for one in facts.get("against", ())] + [f"Not checked: {one}" for one in facts.get("not_checked", ())]
    return PlanView(
        plan.digest,
        str(plan.kind),
        state.standing.replace("_", " "),
        state.why,
        state.waits,
        tuple(Change(step.action.summary, tuple(_values(step.action, step.before, serving))) for step in state.steps),
        tuple(part for reason in plan.reasons if reason != facts.get(OBJECTION) for part in parts_of(reason)),
        str(facts.get(OBJECTION, "")),
        plan.expected,
        tuple(map(str, facts.get("dry_run", ()))),
        tuple(map(str, facts.get("candidate", ()))),
        tuple(about),
        tuple(_numbers(plan)),
        rule.sentence,
        tuple(_decision(row, now) for row in said if row.plan_digest == plan.digest),
        _decides(acts, Act.APPROVE, plan.digest),
        _decides(acts, Act.REJECT, plan.digest),
    )


def parts_of(said: str) -> list[str]:
    """A long sentence at its semicolons, but for those in brackets.

    >>> parts_of("F1 fell (0.82 -> 0.49; 105 failures); no threshold change explains it")
    ['F1 fell (0.82 -> 0.49; 105 failures)', 'no threshold change explains it']
    """
    found: list[str] = []
    for part in said.split("; "):
        if found and found[-1].count("(") > found[-1].count(")"):
            found[-1] += f"; {part}"
        else:
            found.append(part)
    return found


def _decides(acts: Sequence[Possible], act: Act, digest: str) -> Possible:
    return next((one for one in acts if one.act is act and one.digest == digest), Possible(act, "It does not wait for a decision.", digest))


def _values(action: Action, before: Mapping[str, Any] | None, serving: str | None) -> Iterator[tuple[str, str, str]]:
    """(name, from, to); what it was is known once the journal has it, and of the version that serves before."""
    was = dict(before or {})
    if isinstance(action, RollBack | Promote | RouteTraffic) and not was and serving:
        was = dict.fromkeys(action.target(), serving)
    for name, value in action.target().items():
        for part, to in value.items() if isinstance(value, Mapping) else [(name, value)]:
            if to not in (None, "", (), [], {}):
                old = was.get(part, was.get("serving_version") if part in ("target_version", "version") else None)
                yield str(part).replace("_", " "), "?" if old is None else _shown(old), _shown(to)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _numbers(plan: Plan) -> Iterator[tuple[str, str]]:
    for key, title in NUMBERS.items():
        if (value := plan.facts.get(key)) is not None:
            yield title, f"{value:.2f}" if isinstance(value, float) else str(value)


def _decision(row: StoredApproval, now: datetime) -> Quote:
    void = f" (void: {row.voided_because})" if row.voided_at else ""
    reason = f": {row.reason}" if row.reason else ""
    return Quote(row.approver, f"{row.decision} by {row.door.replace('_', ' ')}{reason}{void}", When.of(row.at, now))


@dataclass(frozen=True)
class InForce:
    """Something that is so because of this incident, or ought to be. `state`: in force, waiting, in progress, failed, ..."""

    text: str
    state: str
    why: str = ""
    since: When | None = None

    @property
    def is_trouble(self) -> bool:
        return self.state in ("failed", "lapsed", "not known")


def orders_in_force(orders: Sequence[Ordered], now: datetime) -> Iterator[InForce]:
    """Every order that counts, the newest first."""
    over = (OrderState.REPLACED, OrderState.REVERSED, OrderState.REJECTED)
    for one in reversed(orders):
        if one.state not in over and one.plan.actions:
            what = "; ".join(action.summary for action in one.plan.actions)
            state = one.state.replace("_", " ")
            yield InForce(what, state, f"{one.plan.reasons[0]}. {_sentence(one.sentence)}", When.of(one.given.since, now))


def contained(rows: Iterable[Row], ordered: Collection[str], now: datetime) -> Iterator[InForce]:
    """Containment that is in force without an order of a person. `ordered`: the digests of the orders, which speak for themselves."""
    for row in rows:
        if row.plan_digest not in ordered:
            state = "in force" if row.settled else "not known"
            why = "; ".join([*row.caveats, *([row.error] if row.error else [])])
            yield InForce(row.summary, state, why, When.of(row.done_at or row.intended_at, now))


def serving(rows: Sequence[Row], at_detection: str | None) -> tuple[str | None, str]:
    """The version that serves according to the store, and on what that rests."""
    sets = {RollBack.kind: "target_version", Promote.kind: "version", RouteTraffic.kind: "version"}
    settled = [row for row in rows if row.settled and row.undone_by is None and row.kind in sets and row.target.get(sets[row.kind])]
    if settled:
        last = max(settled, key=lambda row: row.number)
        return str(last.target[sets[last.kind]]), "as the last change read it back"
    return at_detection, "when triage looked" if at_detection else ""


@dataclass(frozen=True)
class Done:
    """One change to production. `state` in words; `note` what else is to be known of it."""

    text: str
    state: str
    note: str
    at: When


_STATES = {
    ActionState.INTENDED: "about to begin",
    ActionState.APPLYING: "under way",
    ActionState.DONE: "done",
    ActionState.ALREADY_HELD: "was so already",
    ActionState.UNKNOWN: "not known whether it happened",
    ActionState.REFUSED: "refused",
}


def done(rows: Iterable[Row], past: Mapping[str, str], now: datetime) -> tuple[Done, ...]:
    """The journal, oldest first. `past`: by a row's id, what was done as people are told."""
    found = []
    for row in rows:
        state = "taken back" if row.undone_by else _STATES.get(ActionState(row.state), row.state)
        notes = [*row.caveats, *([row.kept_because] if row.kept_because else []), *([row.error] if row.error and not row.settled else [])]
        text = past.get(row.id, row.summary) if row.settled else row.summary
        found.append(Done(_capital(text), state, "; ".join(notes), When.of(row.done_at or row.intended_at, now)))
    return tuple(found)


@dataclass(frozen=True)
class FindingView:
    group: str
    title: str
    state: str
    sentence: str
    source: str


_SUSPECT_FIRST = {State.SUSPECT: 0, State.UNKNOWN: 1, State.OK: 2}


def findings(found: Iterable[Finding]) -> tuple[FindingView, ...]:
    """The most suspect first, each state in the order of the runbook's checklist."""
    items = {item.key: (i, item) for i, item in enumerate(CHECKLIST)}
    by_suspicion = sorted(found, key=lambda one: (_SUSPECT_FIRST[one.state], items[one.key][0]))
    return tuple(FindingView(items[f.key][1].group, items[f.key][1].title, str(f.state), f.sentence, f.source) for f in by_suspicion)


@dataclass(frozen=True)
class Attention:
    """What waits for this visitor, in the order in which to do it: the buttons at hand."""

    sentence: str
    acts: tuple[Possible, ...]


def attention(answer: Answer, plans: Sequence[PlanView], acts: Sequence[Possible], incident: Incident) -> Attention:
    """What to do first. Whoever may do nothing learns for whom it waits."""
    at_hand = [one for one in acts if one.is_possible and one.act is Act.ACKNOWLEDGE and answer.state != "answered"]
    asked = [plan for plan in plans if plan.waits]
    mine = [plan for plan in asked if plan.approve.is_possible]
    for plan in mine[:1]:
        at_hand += [plan.approve, *([plan.reject] if plan.reject.is_possible else [])]
    if not incident.status.is_open:
        return Attention("This incident is over.", ())
    said = []
    if answer.state in ("due", "late"):
        said.append(answer.sentence)
    if mine:
        said.append(f"Your decision: {_of(mine[0])}." + (f" {len(mine) - 1} more below." if len(mine) > 1 else ""))
    elif asked:
        said.append(f"Waiting for a decision by somebody else: {_of(asked[0])}. {asked[0].approve.why_not or asked[0].who}")
    return Attention(" ".join(said) or "Nothing to do right now.", tuple(at_hand))


def _of(plan: PlanView) -> str:
    return "; ".join(change.summary for change in plan.changes) or f"the {plan.kind} plan"


def others(acts: Sequence[Possible], at_hand: Attention) -> tuple[tuple[Possible, ...], tuple[Possible, ...]]:
    """The rest of what may be done, decisions apart, and what may not with the reason."""
    rest = [one for one in acts if one not in at_hand.acts and one.act not in (Act.APPROVE, Act.REJECT)]
    return tuple(one for one in rest if one.is_possible), tuple(one for one in rest if not one.is_possible)


def waiting_first(plans: Iterable[PlanView]) -> tuple[PlanView, ...]:
    """What waits for this visitor, what waits for others, then what is approved, then the rest; the newest of each first."""
    rank = {Standing.PENDING.value: 2, Standing.APPROVED.value: 3}

    def order(plan: PlanView) -> int:
        return int(not plan.approve.is_possible) if plan.waits else rank.get(plan.standing, 4)

    return tuple(sorted(list(plans)[::-1], key=order))


def _sentence(text: str) -> str:
    return _capital(text) + ("" if text.endswith(".") else ".")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
