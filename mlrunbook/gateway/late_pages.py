"""Whether pages go out in time: which one does not, and since when. `/health` says it, and the heartbeat."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from mlrunbook.response.world import World
from mlrunbook.store import outbox

PAGE_LATE = timedelta(seconds=120)  # deployments/prometheus/watch.yml alarms after the same time


@dataclass(frozen=True)
class LatePage:
    incident_id: str | None
    channel: str | None
    since: datetime
    late_s: float

    @property
    def sentence(self) -> str:
        about = f"about {self.incident_id} by the channel {self.channel}"
        return f"a page {about} has been due since {self.since:%Y-%m-%d %H:%M:%S} UTC ({self.late_s:.0f} s) and has not gone out"


def find(world: World) -> LatePage | None:
    """The page that has waited longest, where that is too long."""
    with world.transaction() as conn:
        now = world.now()
        waiting = outbox.longest_due(conn, "page", now=now)
    if waiting is None or now - waiting.since <= PAGE_LATE:
        return None
    return LatePage(waiting.incident_id, waiting.channel, waiting.since, (now - waiting.since).total_seconds())
