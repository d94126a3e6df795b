"""Runs the shipped flows without a Prefect server.

The engine stands in for the functions of Prefect that flows and tasks go through: running a flow, running a task, suspending, and showing
something on the run page. Flows and tasks are Prefect's own objects; retries, delays, the retry condition, timeouts, run names and
validated parameters are read from them. What is not here: states and logs on a server, concurrency limits, results, caches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar
from unittest import mock
from uuid import uuid4

from prefect import Flow, Task
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.context import FlowRunContext, SettingsContext, get_settings_context
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE, Settings
from prefect.states import Failed
from pydantic import BaseModel

R = TypeVar("R")
Sleep = Callable[[float], Awaitable[None]]


class Suspended(BaseException):
    """The run stops here until it is resumed. Not an Exception, as Prefect's own signal: nothing in between may take it for an error."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


async def no_wait(_: float) -> None:
    """The delay before a retry, where the clock is the test's."""


@dataclass
class PlainEngine:
    """One Prefect, with its runs, gates and artifacts.

    Attributes:
        sleep: Waits before a retry.
        in_threads: Run steps in threads, as a worker does, so that a timeout can cut one off. False: at once, in the order of the calls.
        ran: The names of the runs of flows and tasks, in the order they began; once for each attempt.
        delays_s: The waits before retries.
        artifacts: What the run pages show, by key.
        forms: The forms that runs have stopped at.
    """

    sleep: Sleep = no_wait
    in_threads: bool = False
    ran: list[str] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)
    artifacts: dict[str, str] = field(default_factory=dict)
    forms: list[type[BaseModel]] = field(default_factory=list)
    _gates: dict[tuple[str, str], Mapping[str, Any] | None] = field(default_factory=dict)

    def run(self, flow: Flow[..., Any], run_id: str, **parameters: Any) -> Any:
        """A run of the flow: from the top, also where one with this id was suspended or killed before. Raises Suspended at an open gate."""
        with self._standing_in(), asyncio.Runner() as runner:
            runner.get_loop().set_default_executor(ThreadPoolExecutor() if self.in_threads else _AtOnce())
            return runner.run(self._run_flow(flow, parameters, run_id))

    def answer(self, run_id: str, key: str, answer: Mapping[str, Any]) -> None:
        """What somebody types into the form that this run is suspended at; `run` it again to go on."""
        self._gates[run_id, key] = answer

    @contextmanager
    def _standing_in(self) -> Iterator[None]:
        def run_flow(flow: Flow[..., Any], parameters: dict[str, Any], **_: Any) -> Awaitable[Any]:
            parent = FlowRunContext.get()
            above = f"{parent.flow_run.id}/" if parent and parent.flow_run else ""
            return self._run_flow(flow, parameters, above + flow.name)

        def run_task(task: Task[..., Any], parameters: dict[str, Any], **_: Any) -> Awaitable[Any]:
            return self._run_task(task, parameters)

        with (
            _no_server(),
            mock.patch("prefect.flow_engine.run_flow", run_flow),
            mock.patch("prefect.task_engine.run_task", run_task),
            mock.patch("prefect.flow_runs.asuspend_flow_run", self._suspend),
            mock.patch("prefect.artifacts.acreate_markdown_artifact", self._show),
            mock.patch("prefect.artifacts.acreate_link_artifact", self._show),
            mock.patch("prefect.artifacts.acreate_progress_artifact", self._show),
            mock.patch("prefect.artifacts.aupdate_progress_artifact", self._show),
        ):
            yield

    async def _run_flow(self, flow: Flow[..., Any], given: dict[str, Any], run_id: str) -> Any:
        parameters = _validated(flow, given)
        described = FlowRun.model_construct(id=run_id, name=run_id, parameters=parameters, tags=[])
        with FlowRunContext.model_construct(flow=flow, flow_run=described, parameters=parameters):
            self.ran.append(_name(flow.flow_run_name, parameters) or flow.name)
            return await self._tried(flow, lambda: flow.fn(**parameters))

    async def _run_task(self, task: Task[..., Any], parameters: dict[str, Any]) -> Any:
        self.ran.append(_name(task.task_run_name, parameters) or task.name)
        return await self._tried(task, lambda: task.fn(**parameters))

    async def _tried(self, one: Flow[..., Any] | Task[..., Any], call: Callable[[], Awaitable[Any]]) -> Any:
        """The call, as often as the decorator says and no longer than it allows."""
        for attempt in range((one.retries or 0) + 1):
            try:
                async with asyncio.timeout(one.timeout_seconds):
                    return await call()
            except Exception as error:
                if attempt == (one.retries or 0) or not await _may_retry(one, error):
                    raise
                self.delays_s.append(delay := _delay_s(one.retry_delay_seconds, attempt))
                await self.sleep(delay)
                self.ran.append(self.ran[-1])
        raise AssertionError("a loop over at least one attempt has returned or raised")

    async def _suspend(self, *, wait_for_input: type[BaseModel], key: str) -> BaseModel:
        """As in Prefect: a run stops at a gate once; run again, it takes the answer as it is, even an incomplete one."""
        context = FlowRunContext.get()
        run = context.flow_run if context else None
        assert run, "a run is suspended by its flow"
        gate = (str(run.id), key)
        if gate not in self._gates:
            self._gates[gate] = None
            self.forms.append(wait_for_input)
            raise Suspended(key)
        return wait_for_input(**(self._gates[gate] or {}))

    async def _show(self, *where: Any, key: str = "", **content: Any) -> Any:
        self.artifacts[key or str(where)] = str(content.get("markdown") or content.get("link") or content.get("progress"))
        return uuid4()


class _AtOnce(ThreadPoolExecutor):
    """Runs what is submitted before it returns."""

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        done: Future[R] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:
            done.set_exception(error)
        return done


def _no_server() -> SettingsContext:
    """What would reach for a server fails, instead of starting one."""
    return SettingsContext(profile=get_settings_context().profile, settings=_settings())


@cache
def _settings() -> Settings:
    return get_settings_context().settings.copy_with_update(
        updates={PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False, PREFECT_LOGGING_TO_API_ENABLED: False}
    )


def _validated(flow: Flow[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    if not flow.should_validate_parameters:
        return given
    key = (flow, *given.items())
    try:
        return dict(_known_valid[key])
    except (KeyError, TypeError):  # TypeError: one of them is a list
        valid = flow.validate_parameters(given)
    if all(isinstance(value, Hashable) for value in given.values()):
        _known_valid[key] = valid
    return dict(valid)


_known_valid: dict[tuple[Any, ...], dict[str, Any]] = {}  # Prefect builds a model for each check: 5 ms, a dozen subflows a run


def _name(given: Any, parameters: dict[str, Any]) -> str | None:
    return given() if callable(given) else given.format(**parameters) if given else None


async def _may_retry(one: Flow[..., Any] | Task[..., Any], error: Exception) -> bool:
    """A flow's retries have no condition; a task's sees the failed state, and one that raises says no."""
    condition = getattr(one, "retry_condition_fn", None)
    if condition is None:
        return True
    try:
        said = condition(one, TaskRun.model_construct(name=one.name), Failed(data=error))
        return bool(await said if isinstance(said, Awaitable) else said)
    except Exception:
        return False


def _delay_s(given: Any, attempt: int) -> float:
    """Jitter apart, which only spreads runs that fail together."""
    if not isinstance(given, list | tuple):
        return float(given or 0)
    return float(given[min(attempt, len(given) - 1)])
