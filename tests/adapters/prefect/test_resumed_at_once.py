"""A decision comes in the moment that a run suspends: it is scheduled again while its process of before is still ending."""

from __future__ import annotations

import uuid

import anyio
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import WorkerFlowRunResponse

from mlrunbook.adapters.prefect.worker import Worker


def test_a_run_that_still_holds_its_place_is_left_for_a_later_look_and_the_worker_lives_on() -> None:
    async def look() -> list[FlowRun]:
        worker = Worker(work_pool_name="pool", limit=2)
        worker._limiter = anyio.CapacityLimiter(2)
        run = FlowRun(flow_id=uuid.uuid4(), state=None)
        worker._limiter.acquire_on_behalf_of_nowait(run.id)
        return await worker._submit_scheduled_flow_runs([WorkerFlowRunResponse(work_pool_id=run.id, work_queue_id=run.id, flow_run=run)])

    assert anyio.run(look) == []
