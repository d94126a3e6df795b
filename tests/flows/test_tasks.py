"""What holds for every task and flow, and that errors are retried as their kind says."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
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
from mlrunbook.domain.incident import Severity
from mlrunbook.response.run import Run
from mlrunbook.response.world import World
from mlrunbook.store.leases import Lease
from tasks._run_page import showing_progress
from tasks._step import RETRY_TRANSIENT, step
from tasks.run import off_loop, on_behalf_of
from tests.flows.live import ChildStack
from tests.plain_engine import PlainEngine


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


@pytest.mark.parametrize("one", TASKS, ids=lambda t: t.name)
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


RunFlow = Callable[..., Awaitable[Any]]


@pytest.fixture
def prefect(stack: ChildStack) -> Iterator[None]:
    ours = {PREFECT_API_URL: stack.prefect_api_url, PREFECT_API_AUTH_STRING: stack.prefect_auth, PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(ours):
        yield


@pytest.fixture(params=["plain", pytest.param("prefect", marks=[pytest.mark.prefect, pytest.mark.stack])])
def run_flow(request: pytest.FixtureRequest) -> RunFlow:
    """Runs a flow, on the plain engine and on a real Prefect: tests of the response trust the one to do as the other."""
    if request.param == "prefect":
        request.getfixturevalue("prefect")
        return lambda one, **parameters: one(**parameters)

    async def run(one: Flow[..., Any], **parameters: Any) -> Any:
        return await asyncio.to_thread(PlainEngine(in_threads=True).run, one, "a run", **parameters)

    return run


POLICY = RETRY_TRANSIENT | {"retries": 2, "retry_delay_seconds": 0}


async def test_transient_is_retried_refused_and_unknown_are_not(run_flow: RunFlow) -> None:
    tried: Counter[str] = Counter()

    @task(task_run_name="fail-with-{error}", **POLICY)
    async def fail_with(error: type[Exception]) -> str:
        tried[error.__name__] += 1
        raise error("not now")

    @flow(name="fails", persist_result=False)
    async def fails() -> None:
        for error in (Transient, Refused, Unknown):
            with pytest.raises(error):
                await fail_with(error)

    await run_flow(fails)
    assert tried == {"Transient": 3, "Refused": 1, "Unknown": 1}


async def test_a_task_that_takes_too_long_is_cut_off_and_tried_again(run_flow: RunFlow) -> None:
    tried: Counter[str] = Counter()

    @task(task_run_name="hang", **(POLICY | {"timeout_seconds": 0.2}))
    async def hang() -> str:
        tried["hang"] += 1
        if tried["hang"] < 3:
            await asyncio.Event().wait()
        return "answered"

    @flow(name="hangs", persist_result=False)
    async def hangs() -> str:
        return await hang()

    assert await run_flow(hangs) == "answered"
    assert tried["hang"] == 3


async def test_a_flow_checks_what_it_is_given_and_fails_as_its_step_fails(run_flow: RunFlow) -> None:
    @flow(name="graded", persist_result=False)
    async def graded(severity: Severity) -> Severity:
        return severity

    @task(task_run_name="break", **POLICY)
    async def breaks() -> None:
        raise KeyError("a defect")

    @flow(name="broken", persist_result=False)
    async def broken() -> None:
        await breaks()

    assert await run_flow(graded, severity="high") is Severity.HIGH
    with pytest.raises(Exception, match="severity: Input should be"):
        await run_flow(graded, severity="dreadful")
    with pytest.raises(KeyError):
        await run_flow(broken)


async def test_a_step_belongs_to_the_incident_of_the_run_in_subflows_too(run_flow: RunFlow) -> None:
    whose = step(lambda run, what: f"{what} of {run.incident_id}", "whose-{what}-{incident_id}")

    @flow(name="inner", persist_result=False)
    async def inner() -> str:
        with pytest.raises(Refused, match="this run carries incident_7: start `respond` for incident_8"):
            await whose("incident_8", "plan")
        return await whose("incident_7", what="plan")

    @flow(name="outer", persist_result=False)
    async def outer() -> str:
        with pytest.raises(Refused, match="inside `respond`"):
            await whose("incident_7", "plan")
        with on_behalf_of(Run(cast(World, None), Lease("incident_7", 1, "a run", "running", 1, None))):
            return await inner()

    assert await run_flow(outer) == "plan of incident_7"


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
