"""What Prometheus reads of the gateway (`GET /metrics`): are people reached, are incidents carried. Counts alone, from the store.

Names: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from mlrunbook.gateway.api.dependencies import READER
from mlrunbook.response.world import World
from mlrunbook.store import incidents, journal, leases, outbox, quarantine

MANY = 10_000

# name -> (help, labels)
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "mlrunbook_dispatcher_up": ("Whether this gateway's dispatcher does its rounds: 1 yes, 0 no; absent where it has none", ()),
    "mlrunbook_incidents_open": ("Incidents that are not over", ("model", "type", "severity")),
    "mlrunbook_incidents_unproven": ("Open incidents whose claim outcomes have neither proven nor ruled out yet", ("model", "severity")),
    "mlrunbook_outbox_due": ("What is due or was tried, and has not gone out: pages, messages, starts of runs, timers", ("kind",)),
    "mlrunbook_page_waiting_seconds": ("How long the page that is due and has waited longest has not gone out; 0: none waits", ()),
    "mlrunbook_outbox_failing": ("What was tried and has not gone out", ("kind",)),
    "mlrunbook_runs_silent": ("Incidents whose run has gone silent and is not started again yet", ()),
    "mlrunbook_changes_unknown": ("Changes of open incidents of which nobody can say whether they happened", ()),
    "mlrunbook_quarantine_waiting": ("What trusted senders sent and nobody could use, and nobody has replayed", ("source",)),
}


class StoreCollector(Collector):
    def __init__(self, world: World, dispatcher_alive: Callable[[], bool] | None) -> None:
        self._world, self._alive = world, dispatcher_alive

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Without it the registry would collect once when it takes this collector."""
        return (GaugeMetricFamily(name, help_, labels=labels) for name, (help_, labels) in FAMILIES.items())

    def collect(self) -> Iterable[GaugeMetricFamily]:
        families = {family.name: family for family in self.describe()}

        def add(name: str, value: float, *labels: str) -> None:
            families[name].add_metric(labels, float(value))

        if self._alive:
            add("mlrunbook_dispatcher_up", self._alive())
        with self._world.transaction() as conn:
            now = self._world.now()
            for labels, count in incidents.open_by_kind(conn).items():
                add("mlrunbook_incidents_open", count, *labels)
            for (model, severity), count in incidents.unproven_by_kind(conn).items():
                add("mlrunbook_incidents_unproven", count, model, severity)
            for kind, (due, failing) in outbox.waiting(conn, now=now).items():
                add("mlrunbook_outbox_due", due, kind)
                add("mlrunbook_outbox_failing", failing, kind)
            due_at = outbox.oldest_due(conn, "page", now=now)
            add("mlrunbook_page_waiting_seconds", max(0.0, (now - due_at).total_seconds()) if due_at else 0)
            add("mlrunbook_runs_silent", len(leases.silent(conn, self._world.elapsed(), limit=MANY)))
            add("mlrunbook_changes_unknown", journal.unknown_of_open(conn))
            for source, count in quarantine.waiting_by_source(conn).items():
                add("mlrunbook_quarantine_waiting", count, source)
        return families.values()


def expose(app: FastAPI, world: World, *, dispatcher_alive: Callable[[], bool] | None) -> None:
    """`GET /metrics`, for a token of scope read: alerts reach the gateway from anywhere, and so could others."""
    registry = CollectorRegistry()
    registry.register(StoreCollector(world, dispatcher_alive))
    registry.register(app.state.edge.refused)

    @app.get(
        "/metrics",
        tags=["health"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        dependencies=[READER],
    )
    def metrics() -> Response:
        """How many incidents are open, what is due and has not gone out, what is quarantined: in the text format of Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
