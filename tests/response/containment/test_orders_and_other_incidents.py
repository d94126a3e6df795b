"""Orders where several incidents of one model are open: the newest about a thing counts, whichever incident it was given in."""

from __future__ import annotations

from contextlib import suppress

import pytest

from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.actions import Order, PlanKind
from mlrunbook.domain.errors import Fenced, Refused, RunbookError
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.gateway import closing
from mlrunbook.response.world import World
from mlrunbook.store import incidents, journal, leases
from tests.fakes import Clock, FileWorld
from tests.response.carrying import carry
from tests.response.containment.test_emergency import order
from tests.response.people import approve, incident_of, report

LEAD = Identity("1", "the lead", "ml_team_lead", frozenset({Scope.OPERATE, Scope.APPROVE}))


class Killed(BaseException):
    """The process is gone."""


def fenced_off(*_: object, **__: object) -> None:
    raise Fenced("replaced by another run")


def another(world: World, severity: Severity = Severity.MEDIUM) -> str:
    """A second incident of the same model, of another family."""
    return report(world, severity, IncidentType.INFRASTRUCTURE, by_alert=False)


def carried(world: World, incident_id: str, holder: str) -> None:
    with suppress(RunbookError):
        carry(world, incident_id, holder)


def killed_at(world: World, file_world: FileWorld, incident_id: str, moment: str) -> None:
    def kill(what: str) -> None:
        if what == moment:
            raise Killed

    file_world._tap = kill
    with suppress(Killed):
        carry(world, incident_id, "killed")
    file_world._tap = lambda _: None


def close(world: World, incident_id: str, *, keep: bool = False) -> None:
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id, lock=True)
        closing.close(conn, world, incident, LEAD, closing.Closing(reason="given up", keep_containment=keep))


def test_a_fix_takes_back_nothing_that_was_ordered_in_another_incident(world: World, file_world: FileWorld, clock: Clock) -> None:
    file_world.set(bad_versions={"v2.0.0": "dangerous"})
    first = report(world, Severity.CRITICAL)
    carried(world, first, "a-1")
    assert file_world.state["config"]["auto_work_orders"] is False
    second = another(world)
    order(world, second, Order.HALT_WORK_ORDERS)
    order(world, second, Order.ROUTE, version="v1.5.0")
    carried(world, second, "b-1")
    approve(world, first)
    clock.advance(minutes=2)
    assert carry(world, first, "a-1") == "closed"
    assert file_world.state["config"]["auto_work_orders"] is False
    assert file_world.state["route"] == "v1.5.0"


def test_taking_back_in_one_incident_leaves_what_another_holds(world: World, file_world: FileWorld, clock: Clock) -> None:
    first, second = report(world), another(world)
    order(world, first, Order.HALT_WORK_ORDERS)
    carried(world, first, "a-1")
    clock.advance(seconds=1)
    order(world, second, Order.HALT_WORK_ORDERS)
    carried(world, second, "b-1")
    clock.advance(seconds=1)
    with suppress(Refused):
        order(world, first, Order.TAKE_BACK)
    carried(world, first, "a-1")
    assert file_world.state["config"]["auto_work_orders"] is False


def test_no_rule_of_another_incident_decides_over_the_heads_of_people(world: World, file_world: FileWorld, clock: Clock) -> None:
    first = another(world)
    order(world, first, Order.ROUTE, version="v1.4.0")
    carried(world, first, "a-1")
    file_world.set(bad_versions={"v2.0.0": "dangerous", "v1.4.0": "dangerous"})
    clock.advance(seconds=5)
    second = report(world, Severity.CRITICAL)
    carried(world, second, "b-1")
    assert (file_world.state["route"], file_world.state["replicas"]) == ("v1.4.0", 1)


@pytest.mark.parametrize("moment", ["before route:v1.4.0", "after route:v1.4.0"])
def test_a_change_that_an_order_replaced_half_way_holds_up_no_other_incident(
    world: World, file_world: FileWorld, clock: Clock, moment: str
) -> None:
    first, second = report(world), another(world)
    order(world, first, Order.ROUTE, version="v1.4.0")
    killed_at(world, file_world, first, moment)
    clock.advance(seconds=40)
    order(world, first, Order.ROUTE, version="v1.5.0")
    carried(world, first, "a-2")
    assert file_world.state["route"] == "v1.5.0"
    clock.advance(seconds=5)
    order(world, second, Order.ROUTE, version="v1.4.0")
    carried(world, second, "b-1")
    assert file_world.state["route"] == "v1.4.0"


def test_an_intent_that_was_never_sent_holds_up_neither_another_incident_nor_the_close(
    world: World, file_world: FileWorld, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = report(world), another(world)
    order(world, first)
    with monkeypatch.context() as patch, suppress(Fenced):
        patch.setattr(journal, "mark", fenced_off)
        carry(world, first, "a-1")
    file_world.down = True
    clock.advance(minutes=20)  # its approval runs out
    with world.transaction() as conn:
        leases.request_start(conn, first, why="silent", now=clock())
    carried(world, first, "a-2")
    file_world.down = False
    order(world, second)
    carried(world, second, "b-1")
    assert file_world.state["replicas"] == 0
    close(world, first)
    assert not incident_of(world, first).status.is_open


def test_an_incident_that_ends_leaves_its_order_the_newest(world: World, file_world: FileWorld, clock: Clock) -> None:
    first, second = report(world, Severity.HIGH), another(world)
    carried(world, first, "a-1")
    file_world.faults["route:v1.4.0"] = ["busy"] * 9
    order(world, first, Order.ROUTE, version="v1.4.0")
    clock.advance(seconds=1)
    order(world, second, Order.ROUTE, version="v1.5.0")
    carried(world, second, "b-1")
    close(world, second, keep=True)
    file_world.faults.clear()
    carried(world, first, "a-1")
    assert file_world.state["route"] == "v1.5.0"


def test_what_was_approved_before_an_order_is_not_carried_out_after_its_incident_has_ended(
    world: World, file_world: FileWorld, clock: Clock
) -> None:
    first, second = report(world, Severity.HIGH), another(world)
    carried(world, first, "a-1")
    approve(world, first, PlanKind.RESOLUTION)
    clock.advance(seconds=1)
    order(world, second, Order.ROUTE, version="v1.4.0")
    carried(world, second, "b-1")
    close(world, second, keep=True)
    carried(world, first, "a-1")
    assert "rollback" not in file_world.applied
