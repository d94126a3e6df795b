"""What holds for every task and flow, and that errors are retried as their kind says."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import pytest
from prefect import Flow, Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

import flows
import tasks
from mlrunbook.base import progress
from mlrunbook.domain.errors import Refused, Transient, Unknown
from mlrunbook.response.run import Run
from mlrunbook.response.world import World
from mlrunbook.store.leases import Lease
from tasks import run as carrier
from tasks._retry import RETRY_TRANSIENT, off_loop
from tasks.features import showing_progress
from tests.flows.live import ChildStack


def members(package: Any, kind: type[Any]) -> list[Any]:
    names = [name for _, name, _ in pkgutil.iter_modules(package.__path__)]
    found = [m for name in names for m in vars(importlib.import_module(f"{package.__name__}.{name}")).values() if isinstance(m, kind)]
    return list({id(m): m for m in found}.values())


TASKS: list[Task[Any, Any]] = members(tasks, Task)
FLOWS: list[Flow[Any, Any]] = members(flows, Flow)


def test_there_are_tasks_and_flows_to_look_at() -> None:
    assert len(TASKS) > 15
    assert {f.name for f in FLOWS} >= {
        "respond",
        "triage",
        "contain",
        "investigate",
        "resolve",
        "draft-review",
        "rollback",
        "materialize",
        "threshold",
    }


@pytest.mark.parametrize("one", TASKS, ids=lambda t: t.fn.__name__)
def test_every_task_has_retries_a_timeout_and_a_run_name_and_keeps_no_result(one: Task[Any, Any]) -> None:
    assert one.retries > 0
    assert one.retry_condition_fn is RETRY_TRANSIENT["retry_condition_fn"]
    assert one.timeout_seconds
    assert one.task_run_name
    assert one.cache_policy is NO_CACHE
    assert one.persist_result is False
    assert one.isasync


@pytest.mark.parametrize("one", FLOWS, ids=lambda f: f.fn.__name__)
def test_every_flow_has_a_run_name_and_keeps_no_result(one: Flow[Any, Any]) -> None:
    assert one.flow_run_name
    assert one.persist_result is False
    assert one.isasync


@pytest.fixture
def prefect(stack: ChildStack) -> Iterator[None]:
    ours = {PREFECT_API_URL: stack.prefect_api_url, PREFECT_API_AUTH_STRING: stack.prefect_auth, PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(ours):
        yield


@pytest.mark.prefect
@pytest.mark.stack
async def test_transient_is_retried_refused_and_unknown_are_not_and_the_run_reaches_tasks_of_subflows(prefect: None) -> None:
    tried: Counter[str] = Counter()
    policy = RETRY_TRANSIENT | {"retries": 2, "retry_delay_seconds": 0}

    @task(task_run_name="fail-with-{error}", **policy)
    async def fail_with(error: type[Exception]) -> str:
        tried[error.__name__] += 1
        raise error("not now")

    @task(task_run_name="who-am-i", **policy)
    async def who_am_i() -> str:
        return carrier.current_run().incident_id

    @flow(name="inner", persist_result=False)
    async def inner() -> str:
        return await who_am_i()

    @flow(name="outer", persist_result=False)
    async def outer() -> str:
        for error in (Transient, Refused, Unknown):
            with pytest.raises(error):
                await fail_with(error)
        return await inner()

    token = carrier._current.set(Run(cast(World, None), Lease("incident_7", 1, "a run", "running", None)))
    try:
        assert await outer() == "incident_7"
    finally:
        carrier._current.reset(token)
    assert tried == {"Transient": 3, "Refused": 1, "Unknown": 1}


@pytest.mark.prefect
@pytest.mark.stack
async def test_how_far_a_change_has_come_is_shown_on_the_run_page(prefect: None) -> None:
    def change() -> str:
        for done in (0, 250, 1000):
            progress.report("asset_sensors", done, 1000)
        progress.report("asset_wear", 0, 0)
        return "done"

    @task(task_run_name="materialize", **RETRY_TRANSIENT)
    async def materialize() -> str:
        async with showing_progress("incident_9-progress"):
            return await off_loop(change)

    @flow(name="shows-progress", persist_result=False)
    async def shows_progress() -> str:
        return await materialize()

    assert await shows_progress() == "done"
    async with get_client() as client:
        bars = {a.key: a.data for a in await client.read_latest_artifacts() if a.key and a.key.startswith("incident-9-progress")}
    assert bars == {"incident-9-progress-asset-sensors": 100.0, "incident-9-progress-asset-wear": 100.0}
