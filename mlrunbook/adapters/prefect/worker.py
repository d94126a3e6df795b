"""The worker of our work pool: Prefect's process worker, but what it starts is fixed here and not by the server.

Whoever has the Prefect login can edit the pool's job template, a deployment and a run on the server. None of it reaches this machine: the
command, the environment and the folder of a run are this file's, and `flow_process` runs flows of this checkout alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import sys
from typing import TYPE_CHECKING, Any

import anyio
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._starter_engine import EngineCommandStarter
from prefect.utilities.processutils import command_to_string, setup_signal_handlers_worker
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from mlrunbook.adapters.prefect.deployments import FLOW_PROCESS, POOL, prefect_client
from mlrunbook.adapters.prefect.leftovers import Sweeper
from mlrunbook.base import run_environment
from mlrunbook.base.settings import settings

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.client.schemas.responses import WorkerFlowRunResponse


class _NoHooks:
    """Prefect would import the deployment's entrypoint, and run its pull steps, in the worker itself. Our flows have no such hooks."""

    async def run_cancellation_hooks(self, flow_run: FlowRun, state: State[Any]) -> None:
        pass

    async def run_crashed_hooks(self, flow_run: FlowRun, state: State[Any]) -> None:
        pass


MODULE = "mlrunbook.adapters.prefect.worker"


class Worker(ProcessWorker):
    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Start our process for the run. Of `configuration` only the variables by which Prefect names the run are used."""
        named = {name: value for name, value in configuration.env.items() if name.startswith("PREFECT__") and value is not None}
        done = None
        async with FlowRunExecutorContext() as context:
            starter = EngineCommandStarter(
                command=command_to_string([sys.executable, *FLOW_PROCESS]),
                cwd=settings().home.resolve(),
                env={**run_environment.kept(os.environ), **named},
                control_channel=context.control_channel,
            )
            executor = context.create_executor(flow_run, starter, hook_runner=_NoHooks(), propose_submitting=False)

            async def execute(*, task_status: anyio.abc.TaskStatus[Any] = anyio.TASK_STATUS_IGNORED) -> None:
                nonlocal done
                done = await executor.submit(task_status=task_status)

            async with anyio.create_task_group() as group:
                handle = await group.start(execute)
                if handle.pid is None:
                    raise RuntimeError(f"the process of run {flow_run.id} did not start")
                if task_status is not None:
                    task_status.started(handle.pid)
        if done is None or done.status_code is None:
            raise RuntimeError(f"the process of run {flow_run.id} did not start")
        return ProcessWorkerResult(status_code=done.status_code, identifier=str(done.handle.pid))

    async def _submit_scheduled_flow_runs(self, flow_run_response: list[WorkerFlowRunResponse]) -> list[FlowRun]:
        """A run that was resumed before the process that suspended it has ended still holds its place, and Prefect's worker would die of
        asking for it twice. It is started at a later look, which is a second away."""
        held = self._limiter.statistics().borrowers if self._limiter else ()
        free = [one for one in flow_run_response if one.flow_run.id not in held]
        return await super()._submit_scheduled_flow_runs(free)

    async def _mark_flow_run_as_cancelled(self, flow_run: FlowRun, state_updates: dict[str, Any] | None = None) -> None:
        """Prefect's worker keeps the place of a run whose deployment was deleted meanwhile, for ever."""
        try:
            await super()._mark_flow_run_as_cancelled(flow_run, state_updates)
        finally:
            self._release_limit_slot(flow_run.id)


async def serve(name: str, *, with_healthcheck: bool) -> None:
    config = settings()
    auth = config.prefect_auth.get_secret_value() if config.prefect_auth else None
    setup_signal_handlers_worker(os.getpid(), "the worker", print)
    worker = Worker(work_pool_name=POOL, name=name, limit=config.runs_at_once, create_pool_if_not_found=False)
    with (
        prefect_client(config.prefect_api_url or "http://127.0.0.1:4200/api", auth) as http,
        Sweeper(http, name),
        contextlib.suppress(asyncio.CancelledError),
    ):
        await worker.start(with_healthcheck=with_healthcheck)


def _shed_what_no_run_may_have() -> None:
    """Begin again with a run's environment: Prefect gives a run all that its worker has, and a run can read what its worker was given."""
    env = run_environment.kept(os.environ)
    if os.environ.keys() - env.keys():
        os.execve(sys.executable, [sys.executable, "-m", MODULE, *sys.argv[1:]], env)  # noqa: S606 - no shell is wanted


def main() -> None:
    _shed_what_no_run_may_have()
    options = argparse.ArgumentParser(description="Run the flows of this checkout.")
    options.add_argument("--name", default=platform.node())
    options.add_argument("--with-healthcheck", action="store_true")
    given = options.parse_args()
    asyncio.run(serve(given.name, with_healthcheck=given.with_healthcheck))


if __name__ == "__main__":
    main()
