"""Step 5: Communication. The initial notification goes out with containment, the updates by the dispatcher's timer."""

from prefect import flow

from tasks.communication import send_resolution_notice


@flow(name="announce-resolution", flow_run_name="announce-resolution-of-{incident_id}", persist_result=False)
async def announce_resolution(incident_id: str) -> None:
    """The resolution notice; it closes the incident."""
    await send_resolution_notice(incident_id)
