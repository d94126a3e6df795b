"""The work pool: never more processes than it has places, critical incidents first, and no place that nobody uses is kept."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.adapters.prefect.deployments import POOL, ensure_pool, queues
from mlrunbook.adapters.prefect.leftovers import Held, left_over, sweep
from tests.adapters.prefect.checkout import Checkout, stays
from tests.flows.live import wait_for

NOW = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)


@pytest.fixture
def pool(ours: Checkout) -> Iterator[Checkout]:
    """A pool of which every place is free, also after a test that failed."""
    yield ours
    ours.end_all()


@given(st.integers(3, 500))
def test_the_lower_queues_together_always_leave_a_place_for_a_critical_incident(places: int) -> None:
    critical, *lower = sorted(queues(places), key=lambda queue: queue.priority)
    assert critical.limit is None
    assert all(queue.limit and queue.limit >= 1 for queue in lower)
    assert sum(queue.limit or 0 for queue in lower) == places - 1


@pytest.mark.prefect
def test_fourteen_incidents_start_no_more_processes_than_there_are_places_and_a_critical_one_that_comes_last_starts_first(
    pool: Checkout,
) -> None:
    names = [f"incident-{number}" for number in range(14)]
    for name in names:
        pool.start("hold", name)
    with pool.worker():
        wait_for("the incidents' places are taken", lambda: len(pool.at_work()) == 2)
        assert stays(lambda: len(pool.at_work()) == 2, 4), "one place is for critical incidents, one for audits"
        pool.start("hold", "critical", urgent=True)
        wait_for("the critical one begins", lambda: "critical" in pool.began)
        pool.start("hold", "critical-2", urgent=True)
        wait_for("every place is taken", lambda: len(pool.at_work()) == 4)
        assert stays(lambda: len(pool.at_work()) == 4, 4)
        late = pool.start("hold", "critical-late", urgent=True)
        assert pool.api.is_queued(late)
        assert not pool.api.is_held_up(late), "nobody is before it but the critical"
        before = pool.began & set(names)
        pool.let_go(min(before))
        wait_for("the late critical one is at work", lambda: "critical-late" in pool.began)
        assert pool.began & set(names) == before, "a place that is free again is for a critical one first"
        pool.let_go("critical", "critical-2", "critical-late", *names)
        wait_for("the others have their turn", lambda: len(pool.began & set(names)) > 2)


@pytest.mark.prefect
def test_a_run_that_waits_for_a_person_takes_no_place_and_goes_on_in_its_queue(pool: Checkout) -> None:
    waiting = [pool.start("ask", f"waits-{number}") for number in range(3)]
    with pool.worker():
        for run_id in waiting:
            pool.wait_until(run_id, "PAUSED")
        pool.start("hold", "beside-1")
        pool.start("hold", "beside-2")
        wait_for("both places are free for others", lambda: {"beside-1", "beside-2"} <= pool.began)
        pool.api.resume(waiting[0], {})
        assert stays(lambda: "waits-0-again" not in pool.began, 4)
        assert pool.api.is_queued(waiting[0])
        assert pool.api.is_held_up(waiting[0])
        pool.let_go("beside-1", "beside-2")
        wait_for("it goes on", lambda: "waits-0-again" in pool.began)
        for run_id in waiting[1:]:
            pool.api.cancel(run_id, "the test is over")
            assert pool.run(run_id)["state_type"] == "CANCELLED"


@pytest.mark.prefect
def test_a_run_that_is_cancelled_gives_its_place_free(pool: Checkout) -> None:
    with pool.worker():
        run_id = pool.start("hold", "replaced")
        wait_for("it is at work", lambda: "replaced" in pool.began)
        pool.api.cancel(run_id, "replaced by a later run")
        pool.wait_until(run_id, "CANCELLED")
        pool.api.cancel(run_id, "again")
        assert pool.run(run_id)["state_type"] == "CANCELLED"
        pool.let_go("replaced")


@pytest.mark.prefect
def test_what_a_killed_worker_leaves_behind_keeps_no_place(pool: Checkout) -> None:
    with pool.worker() as worker:
        run_id = pool.start("hold", "left")
        wait_for("it is at work", lambda: "left" in pool.began)
        wait_for("its worker's name is on it", lambda: pool.run(run_id)["labels"].get("prefect.worker.name") == "ours")
        os.kill(worker.pid, signal.SIGKILL)
    now = datetime.now(UTC)
    assert sweep(pool.login, "ours", now=now + timedelta(minutes=1)) == [], "the run outlives its worker"
    assert sweep(pool.login, "ours", now=now + timedelta(minutes=1), carried=set) == [run_id]
    assert pool.run(run_id)["state_type"] == "CRASHED"
    pool.let_go("left")


@pytest.mark.parametrize(
    ("worker", "age_min", "carried", "heard_min_ago", "crashed"),
    [
        ("me", 5, False, 0, True),
        ("me", 5, True, 0, False),
        ("me", 0, False, 0, False),
        ("other", 5, False, 0.5, False),
        ("other", 5, False, 10, True),
        ("other", 5, False, None, True),
        ("other", 1, False, None, False),
        (None, 1, False, 0, False),
        (None, 10, False, 0, True),
    ],
)
def test_a_run_is_left_over_when_nobody_can_be_carrying_it(
    worker: str | None, age_min: float, carried: bool, heard_min_ago: float | None, crashed: bool
) -> None:
    heard = {"me": NOW} | ({"other": NOW - timedelta(minutes=heard_min_ago)} if heard_min_ago is not None else {})
    run = Held("run", worker, NOW - timedelta(minutes=age_min))
    why = left_over(run, me="me", carried={"run"} if carried else set(), heard=heard, now=NOW)
    assert (why is not None) is crashed


@pytest.mark.prefect
def test_deploying_again_sets_limit_queues_and_template_back(ours: Checkout) -> None:
    ours.login.patch(f"/work_pools/{POOL}", json={"concurrency_limit": 99, "base_job_template": {}}).raise_for_status()
    ours.login.patch(f"/work_pools/{POOL}/queues/incidents", json={"concurrency_limit": 99, "priority": 9}).raise_for_status()
    ensure_pool(ours.login, 4)
    pool = ours.login.get(f"/work_pools/{POOL}").json()
    assert pool["concurrency_limit"] == 4
    assert pool["base_job_template"]["variables"]["properties"] == {}
    found = ours.login.post(f"/work_pools/{POOL}/queues/filter", json={}).json()
    ranked = sorted(found, key=lambda queue: queue["priority"])
    assert [(queue["name"], queue["concurrency_limit"]) for queue in ranked] == [("critical", None), ("incidents", 2), ("default", 1)]
