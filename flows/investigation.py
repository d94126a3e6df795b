"""Step 3: Investigation."""

import asyncio

from prefect import flow

from mlrunbook.domain.records import Record
from tasks.incident import is_recorded
from tasks.investigation import CHECKS, check, diagnose, replay_versions


@flow(name="investigate", flow_run_name="investigate-{incident_id}", persist_result=False)
async def investigate(incident_id: str) -> None:
    """Answer every item of the checklist and replay the other versions, at the same time; then name the cause and the path."""
    if await is_recorded(incident_id, Record.DIAGNOSIS):
        return
    await asyncio.gather(replay_versions(incident_id), *(check(incident_id, name) for name in CHECKS))
    await diagnose(incident_id)
