"""Mode observe: look as always, say what would be done, change nothing and ask for nothing."""

from prefect import flow

from flows.investigation import investigate
from tasks.investigation import publish_findings
from tasks.observation import say_containment, say_resolution
from tasks.triage import reassess_severity


@flow(name="observe", flow_run_name="observe-{incident_id}", persist_result=False)
async def observe(incident_id: str) -> None:
    """What would be contained, what is found, and the plan that would be proposed: on the timeline and in one channel."""
    await say_containment(incident_id)  # 2
    await investigate(incident_id)  # 3
    if await reassess_severity(incident_id):
        await say_containment(incident_id)  # 2 again: it is worse than triage knew
    await publish_findings(incident_id)
    await say_resolution(incident_id)  # 4
