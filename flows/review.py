"""Step 6: Post-Incident Review."""

from prefect import flow

from tasks.artifacts import publish_review
from tasks.incidents import write_review


@flow(name="draft-review", flow_run_name="draft-review-of-{incident_id}", persist_result=False)
async def draft_review(incident_id: str) -> None:
    """The review from the record, due within 48 hours."""
    await publish_review(incident_id, await write_review(incident_id))
