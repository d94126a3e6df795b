"""The one way to change the world: `execute(plan, ordinal)`, which reads as docs/decisions/0002-one-perform.md.

Killed anywhere and run again, it goes on where the world is, not where the process was: a target that holds is not applied
again; a state that is neither the one before nor the target means somebody else acted, and a human decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar

from sqlalchemy import Connection

from mlrunbook.domain.action_state import ActionState
from mlrunbook.domain.actions import Action, Plan, Promote, RollBack, RouteTraffic, Stage, check_own
from mlrunbook.domain.approval import POLICY_RULE
from mlrunbook.domain.containment.emergency import limits_damage
from mlrunbook.domain.errors import Refused, RunbookError, Transient, Unknown
from mlrunbook.response.execution import permission
from mlrunbook.response.execution.handlers import HANDLERS, ActionHandler, State
from mlrunbook.response.run import Run
from mlrunbook.response.tried import required, unexpected
from mlrunbook.response.world import World
from mlrunbook.store import incidents, journal, leases, plans, timeline
from mlrunbook.store.plans import StoredApproval

T = TypeVar("T")
LOOK_EVERY_S = 0.2
WHAT_SERVES = (RollBack, RouteTraffic, Promote, Stage)


def execute(world: World, lease: leases.Lease, plan: Plan, ordinal: int, *, undo_of: str | None = None) -> journal.Row:
    """Carry out one action of an approved plan, at most once, and return its journal row.

    Raises NotApproved, Fenced, Transient (try again: safe), Refused (will not work), Unknown (ask a human).
    """
    return Attempt(Run(world, lease), plan, ordinal, undo_of).carry_out()


@dataclass
class Attempt:
    """One try at one action of a plan. `found`: the journal row of earlier tries; None: there was none, or it has not been read yet."""

    run: Run
    plan: Plan
    ordinal: int
    undo_of: str | None = None
    found: journal.Row | None = field(default=None, init=False)

    def carry_out(self) -> journal.Row:
        with self.run.write() as conn:
            if (settled := self.settled(conn)) is not None:
                return settled
            approval = self.approved(conn)
        if approval is None:
            return self.look_once_more()
        before = self.observe(approval)
        row = self.record_intent(approval, before)
        if self.is_satisfied(before):
            return self.settle(row, before, ActionState.DONE if row.state == ActionState.APPLYING else ActionState.ALREADY_HELD)
        if row.state == ActionState.APPLYING and (late := self.wait_for_earlier_try(row)) is not None:
            return self.settle(row, late)
        self.apply(row)
        return self.settle(row, self.wait(row))

    @property
    def action(self) -> Action:
        return self.plan.actions[self.ordinal]

    @property
    def effect(self) -> ActionHandler:
        return HANDLERS[self.action.kind]

    @property
    def is_under_way(self) -> bool:
        """An earlier try died after it had begun to apply."""
        return self.found is not None and self.found.state == ActionState.APPLYING

    def is_satisfied(self, state: State) -> bool:
        return self.effect.is_satisfied(self.action, state)

    def settled(self, conn: Connection) -> journal.Row | None:
        """The row of an earlier try that has ended. Raises Refused if that try was refused."""
        check_own(incidents.get(conn, self.plan.incident_id).model, self.plan.actions)
        self.found = journal.find(conn, self.plan.incident_id, self.plan.digest, self.ordinal)
        if self.found is not None and self.found.state == ActionState.REFUSED:
            raise Refused(f"{self.found.summary}: {self.found.error}")
        return self.found if self.found is not None and self.found.settled else None

    def approved(self, conn: Connection) -> StoredApproval | None:
        """The approval that covers this change. None: an earlier try may have applied it, but nothing allows it now. Raises NotApproved."""
        if self.found is not None and self.found.state == ActionState.UNKNOWN:
            return None
        return permission.allowed(conn, self.run.world, self.plan, self.ordinal, started=self.is_under_way)

    def look_once_more(self) -> journal.Row:
        """For a change that may have been applied and must not be applied now: settled if the target holds, else Unknown."""
        assert self.found is not None  # what has not begun is NotApproved without an approval
        state = self._read_back(self.found, self._seen)
        if self.is_satisfied(state):
            return self.settle(self.found, state)
        why = self.found.error or "nobody's approval covers it any more, and it may or may not have been applied"
        if self.found.state != ActionState.UNKNOWN:
            self._give_up(self.found, ActionState.UNKNOWN, why)
        raise Unknown(f"{self.found.summary}: its outcome is unknown ({why}); look, then approve a new plan")

    def observe(self, approval: StoredApproval) -> State:
        """The state before the change. An action that must happen even if nothing answers starts from its `unseen` state."""
        if self.found is None and approval.door == POLICY_RULE and isinstance(self.action, WHAT_SERVES):
            self._understood(lambda: permission.check_not_isolated(self.run.world, self.action))
        try:
            return self._read_back(self.found, self._seen)
        except Transient:
            if self.found is not None or (unseen := self.effect.unseen(self.action)) is None:
                raise
            return unseen

    def record_intent(self, approval: StoredApproval, before: State) -> journal.Row:
        """From here on the change counts as begun. Permission is checked again in the transaction that writes the intent: somebody may have
        rejected it, or given another order, while the state was read. The first check keeps an unapproved change from being read at all."""
        with self.run.write() as conn:
            if not self.is_under_way:
                approval = permission.allowed(conn, self.run.world, self.plan, self.ordinal, started=False) or approval
            permission.check_turn(conn, self.plan, self.action)
            if self.undo_of and self.found is None and not self.is_satisfied(before):
                permission.check_as_we_left_it(conn, self.plan, self.action, before)
            intent = journal.Intent(self.plan, self.ordinal, approval.id, self.run.lease.generation, before, self.undo_of)
            return journal.intend(conn, intent, now=self.run.world.now())

    def wait_for_earlier_try(self, row: journal.Row) -> State | None:
        """An earlier try died: its change may still be on its way. None: it did not come, and applying it again is safe."""
        state = self._read_back(row, lambda: self._wait(self.run.world.settle_s / 3))
        if self.is_satisfied(state):
            return state
        if state != row.before and not self.effect.repeatable and not self.effect.half_way(self.action, row.before or {}, state):
            why = f"is {state}: neither the state before ({row.before}) nor the target; somebody else acted"
            self._give_up(row, ActionState.UNKNOWN, why)
        return None

    def apply(self, row: journal.Row) -> None:
        with self.run.write() as conn:
            journal.mark(conn, row, ActionState.APPLYING)
        try:
            self.effect.apply(self.run.world, self.action, row.id)
        except Unknown:
            pass  # reading it back decides
        except Refused as error:
            self._give_up(row, ActionState.REFUSED, str(error), cause=error)
        except RunbookError:
            raise
        except Exception as error:  # whether it was made or not: reading it back decides
            unexpected(self.action.summary, error)

    def wait(self, row: journal.Row) -> State:
        """The state in which the target holds."""
        settle_s = self.run.world.settle_s * self.effect.settles
        state = self._read_back(row, lambda: self._wait(settle_s), applied=True)
        if self.is_satisfied(state):
            return state
        if why := self.effect.failed(state):
            self._give_up(row, ActionState.REFUSED, why)
        self._give_up(row, ActionState.UNKNOWN, f"was applied but reads back as {state} after {settle_s:g} s")

    def settle(self, row: journal.Row, after: State, state: ActionState = ActionState.DONE) -> journal.Row:
        now = self.run.world.now()
        with self.run.write() as conn:
            journal.mark(conn, row, state, after=after, done_at=now, error=None)
            if row.undo_of:
                _set_undone(conn, row, row.undo_of)
            verb = "Done, read back" if state is ActionState.DONE else "Already so, nothing changed"
            data = {"action": row.id, "before": row.before, "after": after, "approval": row.approval_id}
            said = ": ".join([f"{verb}: {row.summary}", *after.get("caveats", ())])
            timeline.append(conn, row.incident_id, "action", said, actor="mlrunbook", at=now, data=data)
            settled = journal.find(conn, row.incident_id, row.plan_digest, row.ordinal)
        assert settled is not None
        return settled

    def _read_back(self, row: journal.Row | None, read: Callable[[], State], *, applied: bool = False) -> State:
        """A change that may have been applied and can no longer be read (expired token, object gone) is unknown: a person looks."""
        try:
            return self._understood(read)
        except Refused as error:
            if row is None or not (applied or row.state == ActionState.APPLYING):
                raise
            self._give_up(row, ActionState.UNKNOWN, f"cannot be read back: {error}", cause=error)

    def _seen(self) -> State:
        return self.effect.read(self.run.world, self.action)

    def _understood(self, read: Callable[[], T]) -> T:
        """An answer that nobody understands is a definite no: asking again does not help, and nothing behind this change waits for it."""
        return required(f"the look before or after {self.action.summary}", read)

    def _wait(self, settle_s: float) -> State:
        """Read back until the target holds or time is up. Raises Transient if it cannot be read by then: that is no outcome yet."""
        deadline = time.monotonic() + settle_s
        while True:
            try:
                state = self._seen()
                if self.is_satisfied(state) or self.effect.failed(state) or time.monotonic() > deadline:
                    return state
            except Transient:
                if time.monotonic() > deadline:
                    raise
            # In real time, as the deadline: what settles is another process, whatever the world's clock says.
            time.sleep(max(min(LOOK_EVERY_S, deadline - time.monotonic()), 0.0))

    def _give_up(self, row: journal.Row, state: ActionState, why: str, *, cause: RunbookError | None = None) -> NoReturn:
        now = self.run.world.now()
        with self.run.write() as conn:
            journal.mark(conn, row, state, error=why)
            timeline.append(conn, row.incident_id, "action", f"{state.capitalize()}: {row.summary}: {why}", actor="mlrunbook", at=now)
        if state is ActionState.REFUSED:
            raise Refused(f"{row.summary}: {why}") from cause
        raise Unknown(f"{row.summary}: {why}; look at the system, then approve a new plan") from cause


def _set_undone(conn: Connection, undo: journal.Row, undo_of: str) -> None:
    """Mark as undone what this change was planned to undo, and earlier changes of the same thing, which it undid as well."""
    journal.set_undone(conn, undo_of, undo.id)
    for other in journal.taken_back_with(conn, undo):
        if limits_damage(plans.get(conn, undo.incident_id, other.plan_digest), other.ordinal):
            journal.set_undone(conn, other.id, undo.id)
