"""How a step of the response becomes a Prefect task: in a thread, retried by one policy, named on the run page.

`Transient` is retried with a growing wait; `Refused` and `Unknown` go to a human at once. Results and caches are off: the store
is the only memory, and a second identical read must look again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.tasks import Task, exponential_backoff

from mlrunbook.bootstrap import world
from mlrunbook.domain.errors import Transient
from mlrunbook.response.run import Run
from mlrunbook.response.world import World
from tasks.run import current_run, off_loop

P = ParamSpec("P")
R = TypeVar("R")
Awaited = Coroutine[Any, Any, R]


async def is_transient(task: Task[..., Any], task_run: Any, state: State[Any]) -> bool:
    result = await state.aresult(raise_on_failure=False)
    return isinstance(result, Transient | TimeoutError)


RETRY_TRANSIENT: dict[str, Any] = {
    "retries": 8,
    "retry_delay_seconds": exponential_backoff(backoff_factor=0.5),
    "retry_jitter_factor": 0.2,
    "retry_condition_fn": is_transient,
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "timeout_seconds": 120,
}


def step(function: Callable[Concatenate[Run, P], R], run_name: str, **options: Any) -> Task[Concatenate[str, P], Awaited[R]]:
    """The task of a step: `task(incident_id, ...)` calls `function(run, ...)` for the run that carries this incident.

    Args:
        function: A step of `mlrunbook.response`; its name and docstring are the task's.
        run_name: The name on the run page, with the parameters it shows in braces.
        options: What differs from `RETRY_TRANSIENT`, such as `timeout_seconds`.
    """

    async def run_step(incident_id: str, *args: P.args, **kwargs: P.kwargs) -> R:
        return await off_loop(function, current_run(incident_id), *args, **kwargs)

    return cast(Task[Concatenate[str, P], Awaited[R]], _task(run_step, function, ("incident_id",), run_name, options))


def labelled_step(function: Callable[Concatenate[Run, P], R], run_name: str, **options: Any) -> Task[Concatenate[str, str, P], Awaited[R]]:
    """As `step`; the first argument after the incident is a `label` that only the run's name shows."""

    async def run_step(incident_id: str, label: str, *args: P.args, **kwargs: P.kwargs) -> R:
        return await off_loop(function, current_run(incident_id), *args, **kwargs)

    return cast(Task[Concatenate[str, str, P], Awaited[R]], _task(run_step, function, ("incident_id", "label"), run_name, options))


def world_step(function: Callable[Concatenate[World, P], R], run_name: str, **options: Any) -> Task[P, Awaited[R]]:
    """As `step`, of a function that belongs to no incident: `task(...)` calls `function(world, ...)`."""

    async def run_step(*args: P.args, **kwargs: P.kwargs) -> R:
        return await off_loop(function, world(), *args, **kwargs)

    return cast(Task[P, Awaited[R]], _task(run_step, function, (), run_name, options))


def _task(made: Callable[..., Any], function: Callable[..., Any], leading: tuple[str, ...], run_name: str, options: dict[str, Any]) -> Any:
    """Prefect reads the signature for the parameters of the run's name, and shows the docstring."""
    _, *own = inspect.signature(function).parameters.values()
    texts = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation="str") for name in leading]
    named = wraps(function)(made)
    named.__signature__ = inspect.Signature([*texts, *own])  # type: ignore[attr-defined]
    where = function.__module__.rpartition(".")[2]
    return task(name=f"{where}.{function.__name__}", task_run_name=run_name, **(RETRY_TRANSIENT | options))(named)
