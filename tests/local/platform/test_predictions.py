"""The prediction log and the work orders made from it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mlrunbook.base.db import transaction
from mlrunbook.domain.observed import ServingConfig
from mlrunbook.local.platform import change_log, outcomes, predictions, work_orders
from tests.local.platform.kit import HOT, NOW, REPORTER, log, new_model, reading, release
from tests.waiting import until

NORMAL = ServingConfig(revision="1", threshold=0.5, human_approval=False, auto_work_orders=True, auto_scheduling=True)


@pytest.fixture
def model(engine: Engine, tmp_path: Path) -> str:
    name = new_model()
    release(engine, tmp_path, name, "v1.5.0")
    return name


def test_ids_come_back_in_the_order_of_the_predictions(engine: Engine, model: str) -> None:
    rows = [
        predictions.Scored(at=NOW, asset_id=f"asset_{i}", asset_type="M", features=reading(HOT), score=i / 10, null_count=0)
        for i in range(10)
    ]
    with transaction(engine) as conn:
        ids = predictions.record(conn, rows, model=model, version="v1.5.0", threshold=0.5, latency_ms=3.5)
        stored = {p.id: p for p in predictions.recent(conn, model=model)}
    assert [stored[i].asset_id for i in ids] == [f"asset_{i}" for i in range(10)]
    assert [stored[i].label for i in ids] == [False] * 5 + [True] * 5
    one = stored[ids[7]]
    assert (one.features, one.score, one.asset_type, one.threshold, one.latency_ms, one.outcome) == (reading(HOT), 0.7, "M", 0.5, 3.5, None)


def test_outcomes_are_entered_corrected_and_the_unknown_ones_named(engine: Engine, model: str) -> None:
    first, second = log(engine, model, unlabelled=2)
    with transaction(engine) as conn:
        assert outcomes.record(conn, {first: True, second: False, 2**62: True}, who=REPORTER, at=NOW) == [2**62]
        outcomes.record(conn, {second: True}, who=REPORTER, at=NOW)
        assert {p.id: p.outcome for p in predictions.recent(conn, model=model)} == {first: True, second: True}


def test_the_log_is_narrowed_by_time_and_by_label(engine: Engine, model: str) -> None:
    old = log(engine, model, tp=1, at=NOW - timedelta(hours=5))
    new = log(engine, model, tp=1, unlabelled=1)
    with transaction(engine) as conn:
        assert [p.id for p in predictions.recent(conn, model=model, limit=2)] == new[::-1]
        assert [p.id for p in predictions.recent(conn, model=model, since=NOW - timedelta(hours=1), labelled_only=True)] == new[:1]
        assert [p.id for p in predictions.recent(conn, model=model, labelled_only=True)] == [new[0], *old]


@pytest.mark.parametrize(
    ("changes", "state", "needs_approval"),
    [
        ({}, "scheduled", False),
        ({"auto_scheduling": False}, "pending", False),
        ({"human_approval": True}, "pending", True),
        ({"human_approval": True, "auto_scheduling": False}, "pending", True),
    ],
)
def test_the_switches_decide_the_state_of_a_new_work_order(
    engine: Engine, model: str, changes: dict[str, bool], state: str, needs_approval: bool
) -> None:
    config = ServingConfig(**NORMAL.as_dict() | {"revision": "1"} | changes)
    with transaction(engine) as conn:
        assert work_orders.create(conn, [(1, "asset_1", 0.9)], model=model, config=config, at=NOW) == 1
        (order,) = work_orders.find(conn, model=model)
        stored = conn.exec_driver_sql("SELECT needs_approval FROM platform.work_orders WHERE id = %s", (order.id,)).scalar()
    assert (order.state, stored) == (state, needs_approval)


def test_halted_creation_makes_no_work_orders(engine: Engine, model: str) -> None:
    halted = ServingConfig(**NORMAL.as_dict() | {"revision": "1", "auto_work_orders": False})
    with transaction(engine) as conn:
        assert work_orders.create(conn, [(1, "asset_1", 0.9)], model=model, config=halted, at=NOW) == 0
        assert work_orders.find(conn, model=model) == []


def test_who_orders_work_waits_for_a_flagging_so_that_halting_and_then_flagging_leaves_no_order_out(engine: Engine, model: str) -> None:
    halted = replace(NORMAL, auto_work_orders=False)
    switches = [NORMAL]

    def order() -> int:
        with transaction(engine) as conn:
            work_orders.hold(conn, model)
            return work_orders.create(conn, [(1, "asset_1", 0.9)], model=model, config=switches[-1], at=NOW)

    def waits() -> bool:
        with transaction(engine) as conn:
            asked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            return conn.exec_driver_sql(asked).scalar() == 1

    with ThreadPoolExecutor() as pool:
        with transaction(engine) as conn:
            work_orders.flag_open(conn, model=model, reason="under suspicion", at=NOW)
            ordered = pool.submit(order)
            until(waits)
            switches.append(halted)
        assert ordered.result(10) == 0


def test_an_asset_has_one_open_work_order_and_a_request_makes_at_most_a_hundred(engine: Engine, model: str) -> None:
    many = [(i, f"asset_{i}", i / 1000) for i in range(300)]
    with transaction(engine) as conn:
        assert work_orders.create(conn, many, model=model, config=NORMAL, at=NOW) == work_orders.MOST_PER_REQUEST
        assert work_orders.create(conn, many, model=model, config=NORMAL, at=NOW) == 0
        assert {o.asset_id for o in work_orders.find(conn, model=model)} == {f"asset_{i}" for i in range(200, 300)}


def test_auto_scheduling_books_the_riskiest_while_the_calendar_has_room(engine: Engine, model: str) -> None:
    many = [(i, f"asset_{i}", i / 100) for i in range(60)]
    with transaction(engine) as conn:
        for _ in range(2):
            work_orders.create(conn, many, model=model, config=NORMAL, at=NOW)
        waiting = work_orders.find(conn, model=model, states=["pending"])
    assert {o.asset_id for o in waiting} == {f"asset_{i}" for i in range(10)}


def test_flagging_covers_every_open_order_and_is_counted_once(engine: Engine, model: str) -> None:
    pending = ServingConfig(**NORMAL.as_dict() | {"revision": "1", "auto_scheduling": False})
    with transaction(engine) as conn:
        work_orders.create(conn, [(1, "asset_1", 0.9)], model=model, config=pending, at=NOW)
        work_orders.create(conn, [(2, "asset_2", 0.9)], model=model, config=NORMAL, at=NOW)
        for _ in range(2):
            flagged = work_orders.flag_open(conn, model=model, reason="model under suspicion", at=NOW)
            assert {(o.asset_id, o.flagged_for_review) for o in flagged} == {("asset_1", True), ("asset_2", True)}
        assert change_log.applied_counts(conn, model)["flag_work_orders"] == 1
