"""Step 6: Post-Incident Review."""

from prefect import flow

from tasks.incidents import write_review


@flow(name="draft-review", flow_run_name="draft-review-of-{incident_id}", persist_result=False)
async def draft_review(incident_id: str) -> str:
    """The review from the record, in Markdown, due within 48 hours."""
    return await write_review(incident_id)
