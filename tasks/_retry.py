"""The one retry and cache policy, and the one way to call the sync steps from async tasks.

`Transient` is retried with a growing wait; `Refused` and `Unknown` go to a human at once. Results and caches are off: the store
is the only memory, and a second identical read must look again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.tasks import Task, exponential_backoff

from mlrunbook.domain.errors import Transient

P = ParamSpec("P")
R = TypeVar("R")


async def off_loop(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a sync step in a thread: a blocked event loop is a flow without heartbeat."""
    return await asyncio.to_thread(function, *args, **kwargs)


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
