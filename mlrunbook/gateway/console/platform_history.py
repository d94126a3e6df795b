"""A metric of one incident as the model platform has counted it until now. Where the platform is away, that is said and nothing waits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from anyio import CapacityLimiter, to_thread

from mlrunbook.domain.errors import NotFound, RunbookError
from mlrunbook.domain.incident import Incident
from mlrunbook.gateway.console.incident_charts import SLICES, ChartView, facts_of, metric_view, reading, readings_of_blocks
from mlrunbook.response.world import World
from mlrunbook.store import incidents

WITHIN_S = 4.0  # somebody looks at the page meanwhile
BEFORE, AFTER = timedelta(hours=6), timedelta(hours=6)  # of the incident
LEAST_SLICE_S = 60.0
# Threads of its own, and few: a platform that hangs takes none from requests, and is not asked by everybody at once.
_asking = CapacityLimiter(4)


@dataclass(frozen=True)
class History:
    """`said`: why there is no chart, or what to know of it."""

    charts: tuple[ChartView, ...]
    said: str = ""


async def read(world: World, incident_id: str) -> History:
    try:
        async with asyncio.timeout(WITHIN_S):
            return await to_thread.run_sync(lambda: _read(world, incident_id), limiter=_asking, abandon_on_cancel=True)
    except TimeoutError:
        return History((), f"The model platform has not answered within {WITHIN_S:.0f} seconds. Reload to ask again.")


def _read(world: World, incident_id: str) -> History:
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id)
        facts = facts_of(conn, incident)
    since, until, slice_s = slices(incident, world.now())
    try:
        blocks = world.platform.outcome_blocks(incident.model, since=since, until=until, block_s=slice_s)
    except NotFound:
        return History((), "The model platform does not count outcomes by time, so there is no more to draw.")
    except RunbookError as error:
        return History((), f"The model platform does not answer now: {error}")
    readings = readings_of_blocks(blocks)
    if not readings:
        return History((), "The model platform knows no outcome of this time yet.")
    before = facts.baseline and reading(facts.baseline.counts, facts.baseline.since, facts.baseline.until)
    return History((metric_view("F1 until now, as the platform counts it", readings, facts.marks, before or None),))


def slices(incident: Incident, now: datetime) -> tuple[datetime, datetime, float]:
    """From some hours before it began to some hours after it ended, or now, in so many slices."""
    since = (incident.started_at or incident.detected_at) - BEFORE
    until = min(now, incident.resolved_at + AFTER) if incident.resolved_at else now
    return since, until, max((until - since).total_seconds() / SLICES, LEAST_SLICE_S)
