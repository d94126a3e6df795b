"""Tasks of steps 5 and 6: the resolution notice and the post-incident review."""

from __future__ import annotations

from prefect import task

from mlrunbook.response.review import closing
from tasks._retry import RETRY_TRANSIENT, off_loop
from tasks.run import current_run


@task(task_run_name="announce-resolution-of-{incident_id}", **RETRY_TRANSIENT)
async def send_resolution_notice(incident_id: str) -> None:
    """The notice that closes the incident."""
    await off_loop(closing.announce_resolution, current_run())


@task(task_run_name="draft-review-of-{incident_id}", **RETRY_TRANSIENT)
async def write_review(incident_id: str) -> str:
    """The post-incident review, in Markdown."""
    return await off_loop(closing.draft_review, current_run())
