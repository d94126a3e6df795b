"""Random lives of one incident in which people order, approve, reject and take back while runs are killed and the world misbehaves.

Each rule is something that people, the runbook or the world may do at any time. What must hold is in `Watch` (at the moment a change is
applied), in the invariants (after every step), and at the end, when all that misbehaves has stopped.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import Engine

from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.actions import Order, Plan, PlanKind
from mlrunbook.domain.containment.emergency import undoes_of
from mlrunbook.domain.containment.orders import OrderState, Thing, newest_about, things_of
from mlrunbook.domain.errors import Refused, RunbookError
from mlrunbook.domain.incident import Severity, Status
from mlrunbook.domain.policy.policy import ApprovalRule, Approvals, Policy
from mlrunbook.domain.roles import Role
from mlrunbook.gateway import closing
from mlrunbook.response.containment import emergency
from mlrunbook.response.containment.emergency import Requester
from mlrunbook.response.execution import standing_orders
from mlrunbook.response.plan_state import valid_approval
from mlrunbook.response.world import World
from mlrunbook.store import incidents, journal, plans
from tests.fakes import MODEL, Clock, FileWorld, LedgerNotifier, LedgerOrchestrator, empty_store, world_of
from tests.response.carrying import carry
from tests.response.containment.test_order_states import breach_that_isolates
from tests.response.people import deliver, report, resolve, say

EXAMPLES = int(os.environ.get("MLRUNBOOK_ORDER_SEQUENCES", "12"))
STEPS = 25
# Shrinking takes minutes, each step is a transaction or more; set it to look for a short sequence.
PHASES = [Phase.explicit, Phase.generate, *([Phase.shrink] if os.environ.get("MLRUNBOOK_ORDER_SHRINK") else [])]
TWO = ApprovalRule(roles=(Role.ONCALL_ML_ENGINEER, Role.ML_TEAM_LEAD), count=2, not_by_requester=False)
PEOPLE = (Requester("the engineer on call", "oncall_ml_engineer", "cli"), Requester("the lead", "ml_team_lead", "rest"))
CHANGES = ("scale:0", "scale:1", "route:v1.5.0", "route:v1.4.0", "route:None", "config:auto_work_orders=False", "rollback")


class Killed(BaseException):
    """The process is gone: nothing of it runs on."""


@dataclass
class Watch:
    """What people have wanted, in the order in which it counted; and whether what is applied may be."""

    wanted: list[tuple[str, str]] = field(default_factory=list)  # (thing, change) of orders and of plans that people approved
    isolated: bool = False
    wrong: list[str] = field(default_factory=list)

    def order(self, plan: Plan) -> None:
        if undoes_of(plan) is not None:
            self.wanted += [(thing, "anything") for thing in Thing]
        else:
            self.wanted += [(thing, _change(plan)) for thing in things_of(plan)]

    def approve(self, plan: Plan) -> None:
        for action in plan.actions:
            if action.kind == "scale":
                self.wanted.append((Thing.SERVING, "anything"))
            elif action.kind == "route_traffic":
                self.wanted.append((Thing.ROUTE, "anything"))

    def __call__(self, change: str) -> None:
        thing = {"scale": Thing.SERVING, "route": Thing.ROUTE}.get(change.partition(":")[0])
        if thing is None:
            return
        if self.isolated:
            self.wrong.append(f"{change} was applied to a server that is isolated")
        wanted = next((w for t, w in reversed(self.wanted) if t == thing), "anything")
        if wanted not in ("anything", change):
            self.wrong.append(f"{change} was applied, and the newest order about {thing} is {wanted}")


def _change(plan: Plan) -> str:
    action = plan.actions[0]
    return f"scale:{action.target()['replicas']}" if action.kind == "scale" else f"route:{action.target().get('version')}"


class Orders(RuleBasedStateMachine):
    engine: Engine

    def __init__(self) -> None:
        super().__init__()
        empty_store(self.engine)
        self.folder = Path(tempfile.mkdtemp())
        self.clock, self.notifier, self.watch = Clock(), LedgerNotifier(), Watch()
        self.kill_at, self.taps, self.holder = 0, 0, 1
        self.others_scaled = False

    def teardown(self) -> None:
        if hasattr(self, "incident_id"):
            self._all_comes_to_an_end()
        shutil.rmtree(self.folder)

    def _tap(self, what: str) -> None:
        if what.startswith("before "):
            self.watch(what.removeprefix("before "))
        self.taps += 1
        if self.taps == self.kill_at:
            raise Killed

    @initialize(two=st.booleans(), severity=st.sampled_from([Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL]), labelled=st.booleans())
    def an_incident_opens(self, two: bool, severity: Severity, labelled: bool) -> None:
        self.files = FileWorld(self.folder / "world.json", self.clock, self._tap)
        self.files.set(labelled=labelled, bad_versions={"v2.0.0": "dangerous" if severity is Severity.CRITICAL else "degraded"})
        policy = Policy(approvals=Approvals(emergency=TWO)) if two else Policy()
        self.world: World = world_of(
            self.engine, self.files, self.clock, policy=policy, notifier=self.notifier, orchestrator=LedgerOrchestrator()
        )
        self.incident_id = report(self.world, severity)

    # -- people

    @rule(what=st.sampled_from(["stop", "halt", "v1.5.0", "v1.4.0"]), by=st.sampled_from(PEOPLE))
    def somebody_orders(self, what: str, by: Requester) -> None:
        order = {"stop": Order.STOP_SERVING, "halt": Order.HALT_WORK_ORDERS}.get(what, Order.ROUTE)
        self._order(order, by, version=what if order is Order.ROUTE else None)

    @rule(by=st.sampled_from(PEOPLE))
    def somebody_takes_back(self, by: Requester) -> None:
        self._order(Order.TAKE_BACK, by)

    def _order(self, order: Order, by: Requester, *, version: str | None = None) -> None:
        self.clock.advance(seconds=1)
        state = self._state()
        try:
            with self.world.transaction() as conn:
                incident = incidents.get(conn, self.incident_id, lock=True)
                if not incident.status.is_open:
                    return
                asked = emergency.Requested(order, by, "it fails", version)
                plan = emergency.request(conn, self.world.policy, incident, asked, now=self.clock(), state=state)
        except Refused:
            return
        self._counts(plan)

    def _state(self) -> Any:
        try:
            return self.files.observe(MODEL)
        except RunbookError:
            return None

    def _counts(self, plan: Plan) -> None:
        with self.world.transaction() as conn:
            if valid_approval(conn, self.world.policy, plan, now=self.clock())[0]:
                self.watch.order(plan)

    @rule(kind=st.sampled_from([PlanKind.EMERGENCY, PlanKind.RESOLUTION, PlanKind.MITIGATION]))
    def the_lead_approves(self, kind: PlanKind) -> None:
        self.clock.advance(seconds=1)
        with self.world.transaction() as conn:
            asked = plans.current(conn, self.incident_id, kind)
            was = asked and valid_approval(conn, self.world.policy, asked, now=self.clock())[0]
        if asked is None or not self._is_open():
            return
        with suppress(Refused):
            say(self.world, self.incident_id, "approved", kind)
            if kind is PlanKind.EMERGENCY:
                self._counts(asked) if not was else None
            else:
                self.watch.approve(asked)

    @rule(kind=st.sampled_from([PlanKind.EMERGENCY, PlanKind.RESOLUTION]))
    def the_lead_rejects(self, kind: PlanKind) -> None:
        self.clock.advance(seconds=1)
        with self.world.transaction() as conn:
            asked = plans.current(conn, self.incident_id, kind)
        if asked is not None and self._is_open():
            with suppress(Refused):
                say(self.world, self.incident_id, "rejected", kind)
                if kind is PlanKind.EMERGENCY:
                    self._tell_anew()

    def _tell_anew(self) -> None:
        """An order is withdrawn: what counts now is what the store says was given before it."""
        with self.world.transaction() as conn:
            known = standing_orders.of_model(conn, self.world.policy, MODEL, now=self.clock())
        for thing in Thing:
            newest = newest_about(known, thing)
            wants = "anything" if newest is None or undoes_of(newest.plan) is not None else _change(newest.plan)
            self.watch.wanted.append((thing, wants))

    @rule()
    def a_human_fixes_it(self) -> None:
        if self._is_open():
            self.clock.advance(seconds=1)
            resolve(self.world, self.incident_id, what=f"fixed at {self.clock()}")

    @rule(keep=st.booleans())
    def the_lead_closes(self, keep: bool) -> None:
        who = Identity("1", "the lead", "ml_team_lead", frozenset({Scope.OPERATE, Scope.APPROVE}))
        with suppress(Refused), self.world.transaction() as conn:
            incident = incidents.get(conn, self.incident_id, lock=True)
            if incident.status.is_open:
                closing.close(conn, self.world, incident, who, closing.Closing(reason="given up", keep_containment=keep))

    # -- officers

    @precondition(lambda self: hasattr(self, "incident_id") and not self.watch.isolated)
    @rule(state=st.sampled_from(["intended", "applying", "unknown", "done"]))
    def a_breach_of_the_model_is_isolated(self, state: str) -> None:
        with self.world.transaction() as conn:
            if incidents.find(conn, model=MODEL, only_open=True):
                with suppress(RunbookError):
                    self.breach = breach_that_isolates(conn, self.world, state)
                    self.watch.isolated = True

    @precondition(lambda self: hasattr(self, "incident_id") and self.watch.isolated)
    @rule()
    def the_isolation_is_lifted(self) -> None:
        self._lift()

    def _lift(self) -> None:
        with self.world.transaction() as conn:
            for row in journal.of_incident(conn, self.breach):
                journal.mark(conn, row, "done")
                journal.set_undone(conn, row.id, row.id)
            incidents.set_status(conn, self.breach, Status.FALSE_ALARM, why="lifted", actor="Security", now=self.clock())
        self.watch.isolated = False

    # -- the runbook

    @rule(kill_after=st.integers(0, 6))
    def a_run_carries_on(self, kill_after: int) -> None:
        self.taps, self.kill_at = 0, kill_after
        try:
            self._carry()
        except Killed:
            self.clock.advance(seconds=40)  # its lease runs out
            self.holder += 1
        self.kill_at = 0

    def _carry(self) -> None:
        with suppress(RunbookError):
            carry(self.world, self.incident_id, f"run-{self.holder}")

    @rule(minutes=st.sampled_from([0.2, 3, 16]))
    def time_passes(self, minutes: float) -> None:
        self.clock.advance(minutes=minutes)
        deliver(self.world)

    # -- the world

    @rule(change=st.sampled_from(CHANGES), fault=st.sampled_from(["busy", "refused", "lost", "late"]), times=st.integers(1, 3))
    def a_change_will_go_wrong(self, change: str, fault: str, times: int) -> None:
        self.files.faults[change] = [fault] * times

    @rule()
    def the_runtime_goes_away_or_comes_back(self) -> None:
        self.files.down = not self.files.down

    @rule()
    def a_stop_that_timed_out_comes_true(self) -> None:
        with self.world.transaction() as conn:
            rows = journal.of_incident(conn, self.incident_id)
        if any(r.kind == "scale" and r.target["replicas"] == 0 and r.state == "unknown" and not r.undone_by for r in rows):
            self.files.set(replicas=0)

    @rule(replicas=st.sampled_from([1, 5]))
    def somebody_else_scales(self, replicas: int) -> None:
        self.files.set(replicas=replicas)
        self.others_scaled = True

    # -- what must hold

    def _is_open(self) -> bool:
        with self.world.transaction() as conn:
            return incidents.get(conn, self.incident_id).status.is_open

    @invariant()
    def nothing_is_applied_against_the_newest_order_or_an_isolation(self) -> None:
        assert self.watch.wrong == []

    @invariant()
    def no_incident_closes_with_serving_stopped_or_routed_and_no_reason(self) -> None:
        if not hasattr(self, "incident_id") or self._is_open():
            return
        with self.world.transaction() as conn:
            rows = journal.of_incident(conn, self.incident_id)
        reasons = [r for r in rows if r.kept_because]
        state = self.files.state
        if state["replicas"] == 0 and any(r.kind == "scale" and r.target["replicas"] == 0 for r in rows):
            assert [r for r in reasons if r.kind == "scale"], "closed at 0 replicas"
        if state["route"] is not None and any(r.kind == "route_traffic" for r in rows):
            changed = [r for r in rows if r.kind in ("route_traffic", "roll_back") and r.state == "done"]
            assert [r for r in reasons if r.kind == "route_traffic"] or _by_a_plan(self.world, changed), "closed with traffic routed"

    def _all_comes_to_an_end(self) -> None:
        """Nothing misbehaves any more: what is ordered comes into force, or people hear of it."""
        self.files.down, self.files.faults = False, {}
        if self.watch.isolated:
            self._lift()
        for _ in range(4):
            self.clock.advance(seconds=61)
            deliver(self.world)
            self._carry()
        if not self._is_open():
            self.no_incident_closes_with_serving_stopped_or_routed_and_no_reason()
            return
        before = len(self.notifier.pages())
        self.clock.advance(minutes=17)
        deliver(self.world)
        heard = " ".join(m.body for m in self.notifier.pages()[before:])
        with self.world.transaction() as conn:
            known = standing_orders.of_model(conn, self.world.policy, MODEL, now=self.clock())
        for one in known:
            assert one.state not in (OrderState.REQUESTED, OrderState.IN_PROGRESS), f"nothing is done about {one}"
            if one.state.is_open:
                assert "ordered" in heard, f"nobody hears of {one.state}: {one.plan.actions}"
        assert self.watch.wrong == []


def _by_a_plan(world: World, rows: list[journal.Row]) -> bool:
    """The newest of these changes is an approved plan's own: the route is what that plan says."""
    if not rows:
        return False
    with world.transaction() as conn:
        return plans.get(conn, rows[-1].incident_id, rows[-1].plan_digest).kind is PlanKind.RESOLUTION


@pytest.fixture
def machine(engine: Engine) -> Iterator[type[Orders]]:
    Orders.engine = engine
    yield Orders
    del Orders.engine


@pytest.mark.timeout(0 if EXAMPLES > 50 else 900)
def test_whatever_people_and_the_world_do_the_newest_order_counts(machine: type[Orders]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=PHASES,
        ),
    )
