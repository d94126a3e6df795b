"""One read fails on an error that nobody expected, at any step: it is not known then, and the incident goes on."""

from __future__ import annotations

from typing import Any

import pytest

from mlrunbook.domain.actions import Order
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.records import Record
from mlrunbook.response.world import World
from tests.fakes import Clock, FileWorld, LedgerNotifier
from tests.response.carrying import PENDING, carry
from tests.response.containment.test_emergency import order
from tests.response.people import approve, deliver, recorded, report, told
from tests.response.test_by_severity import all_high_risk
from tests.response.test_paths_b_and_c import approved, concept_drift

READS = ("status", "metrics", "prediction_log", "versions", "work_orders", "feature_schedules", "observe", "read_config", "logs", "dry_run")
FAILED = "This run failed"


def breaks(file_world: FileWorld, read: str) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise KeyError("an answer of another shape")

    setattr(file_world, read, broken)


def answers_again(file_world: FileWorld, read: str) -> None:
    delattr(file_world, read)


@pytest.mark.parametrize("read", READS)
def test_a_safety_risk_is_paged_announced_and_planned_whatever_read_fails(
    world: World, file_world: FileWorld, notifier: LedgerNotifier, read: str
) -> None:
    all_high_risk(file_world)
    incident_id = report(world, Severity.CRITICAL)
    breaks(file_world, read)
    carry(world, incident_id, "run-1")
    deliver(world)
    assert not [line for line in told(world, incident_id) if FAILED in line]
    assert notifier.pages()
    if recorded(world, incident_id, Record.TRIAGE)["assessment"]["safety_risk"]:
        assert {"supervisors", "maintenance"} <= {m.channel for m in notifier.sent}
    assert recorded(world, incident_id, Record.RESOLUTION_PLAN)


def test_supervisors_hear_at_once_that_the_list_of_work_orders_cannot_be_read(
    world: World, file_world: FileWorld, notifier: LedgerNotifier
) -> None:
    all_high_risk(file_world)
    incident_id = report(world, Severity.CRITICAL)
    breaks(file_world, "work_orders")
    carry(world, incident_id, "run-1")
    deliver(world)
    [message] = [m for m in notifier.sent if m.channel == "supervisors"]
    assert "None pending" not in message.body
    assert "cannot be read" in message.body


@pytest.mark.parametrize("read", ["metrics", "prediction_log"])
def test_a_recovery_that_cannot_be_measured_is_measured_later(world: World, file_world: FileWorld, clock: Clock, read: str) -> None:
    all_high_risk(file_world)
    incident_id = report(world)
    assert carry(world, incident_id, "run-1") == PENDING
    approve(world, incident_id)
    clock.advance(minutes=2)
    applied, asked = file_world.applied, getattr(file_world, read)

    def answer(*args: Any, **how: Any) -> Any:
        if "rollback" in file_world.applied and "rollback" not in applied:
            raise TypeError("an answer of another shape")
        return asked(*args, **how)

    setattr(file_world, read, answer)
    ended = carry(world, incident_id, "run-1")
    assert not [line for line in told(world, incident_id) if FAILED in line]
    if ended != "closed":
        answers_again(file_world, read)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-2") == "closed"


@pytest.mark.parametrize(
    ("what", "read"),
    [(Order.STOP_SERVING, "observe"), (Order.STOP_SERVING, "status"), (Order.ROUTE, "observe"), (Order.HALT_WORK_ORDERS, "read_config")],
)
def test_an_order_is_carried_out_or_paged_whatever_read_fails_and_the_rest_goes_on(
    world: World, file_world: FileWorld, notifier: LedgerNotifier, what: Order, read: str
) -> None:
    incident_id = report(world)
    deliver(world)
    before = len(notifier.pages())
    order(world, incident_id, what, version="v1.5.0" if what is Order.ROUTE else None)
    breaks(file_world, read)
    carry(world, incident_id, "run-1")
    deliver(world)
    assert not [line for line in told(world, incident_id) if FAILED in line]
    assert len(notifier.pages()) > before
    assert recorded(world, incident_id, Record.TRIAGE)
    in_force = {Order.STOP_SERVING: "scale:0", Order.ROUTE: "route:v1.5.0", Order.HALT_WORK_ORDERS: "config:auto_work_orders=False"}[what]
    assert in_force in file_world.applied or any("could not be done" in m.body for m in notifier.pages())


def test_a_change_whose_answer_nobody_understands_is_made_once_and_read_back(
    world: World, file_world: FileWorld, notifier: LedgerNotifier
) -> None:
    scale = file_world.scale

    def scaled(model: str, *, replicas: int) -> None:
        scale(model, replicas=replicas)
        raise ValueError("no JSON")

    file_world.scale = scaled  # type: ignore[method-assign]
    incident_id = report(world)
    order(world, incident_id)
    carry(world, incident_id, "run-1")
    assert file_world.applied["scale:0"] == 1
    assert [line for line in told(world, incident_id) if line.startswith("Done, read back: stop serving")]


class TestAPromotion:
    def test_that_cannot_be_watched_is_watched_later_and_does_not_close_unseen(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        concept_drift(file_world)
        incident_id = report(world)
        assert approved(world, clock, incident_id) == "too early to say"
        breaks(file_world, "metrics")
        clock.advance(seconds=world.policy.retraining.watch_s + 1)
        assert carry(world, incident_id, "run-2") == "too early to say"
        answers_again(file_world, "metrics")
        assert carry(world, incident_id, "run-3") == "closed"

    def test_goes_to_a_person_when_it_could_not_be_watched_for_long(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        concept_drift(file_world)
        incident_id = report(world)
        assert approved(world, clock, incident_id) == "too early to say"
        breaks(file_world, "metrics")
        clock.advance(seconds=world.policy.retraining.watch_s, minutes=world.policy.recovery_watch.give_up_after_min + 1)
        assert carry(world, incident_id, "run-2") == "not recovered"
