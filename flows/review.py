"""Step 6: Post-Incident Review."""

from prefect import flow

from tasks.review import publish_drift_report, write_review


@flow(name="draft-review", flow_run_name="draft-review-of-{incident_id}", persist_result=False)
async def draft_review(incident_id: str) -> str:
    """The review from the record, in Markdown, due within 48 hours; and the drift report, now that nobody waits for it."""
    review = await write_review(incident_id)
    await publish_drift_report(incident_id)
    return review
