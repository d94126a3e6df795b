"""The runbook as it ships, run on a test's world by the plain engine."""

from __future__ import annotations

from typing import Any

from prefect import Flow

from flows.incident import respond
from mlrunbook import bootstrap
from mlrunbook.response.run import Run
from mlrunbook.response.world import World
from tasks.run import on_behalf_of
from tests.plain_engine import PlainEngine, Suspended

PENDING = "pending"


def carry(world: World, incident_id: str, holder: str, *, engine: PlainEngine | None = None) -> str:
    """A run of `respond` with the id `holder`: how it ended, or "pending" where it is suspended."""
    with bootstrap.using(world):
        try:
            return str((engine or PlainEngine()).run(respond, holder, incident_id=incident_id).ended)
        except Suspended:
            return PENDING


def play(flow: Flow[..., Any], run: Run, **parameters: Any) -> Any:
    """One flow of the runbook, by a run that holds the lease."""
    with bootstrap.using(run.world), on_behalf_of(run):
        return PlainEngine().run(flow, str(run.lease.holder), incident_id=run.incident_id, **parameters)
