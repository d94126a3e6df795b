"""`/health` and `/ready`: does this gateway work, does it take alerts in. Their connections and threads are their own."""

from __future__ import annotations

from collections.abc import Callable

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI
from pydantic import Field

from mlrunbook.base import web
from mlrunbook.domain.errors import Transient
from mlrunbook.gateway import late_pages
from mlrunbook.gateway.dispatcher import Dispatcher
from mlrunbook.gateway.heartbeat import Heartbeat
from mlrunbook.response.world import World
from mlrunbook.store import quarantine

THREADS = 4


class Health(web.CamelModel):
    status: str
    store: str
    dispatcher: str
    heartbeat: str = Field(description="Whether the outside watch is pinged: off (none is set), waiting (not yet), ok, failing")
    chain: str = Field(description="Whether heads of the incidents' chains go out signed or unsigned")
    quarantined: int = Field(description="Messages of trusted senders that could not be used and wait for a person")


class Ready(web.CamelModel):
    status: str


def expose(
    app: FastAPI,
    world: World,
    *,
    dispatcher: Dispatcher | None,
    dispatcher_alive: Callable[[], bool] | None,
    heartbeat: Heartbeat | None,
) -> None:
    own = dispatcher.world if dispatcher else world
    looking = CapacityLimiter(THREADS)

    def ready() -> int:
        with own.transaction() as conn:
            quarantined = quarantine.waiting(conn)
        if dispatcher_alive and not dispatcher_alive():
            raise Transient("the dispatcher of this gateway has stopped or hangs: nobody is paged by it; restart the gateway")
        return quarantined

    def healthy() -> int:
        quarantined = ready()
        if dispatcher and (late := late_pages.find(own)):
            raise Transient(f"{late.sentence}: look at the gateway's log and `mlrunbook channel test {late.channel}`")
        return quarantined

    @app.get("/ready", tags=["health"])
    async def readiness() -> Ready:
        """200 while the store answers and the dispatcher of this process, if it has one, is alive; else 503. A page that its channel
        does not take changes nothing here: alerts are still to be taken in."""
        await to_thread.run_sync(ready, limiter=looking)
        return Ready(status="ok")

    @app.get("/health", tags=["health"])
    async def health() -> Health:
        """200 while the store answers, the dispatcher of this process, if it has one, is alive, and pages go out in time; else 503, which
        names the page that has waited longest and since when."""
        return Health(
            status="ok",
            store="reachable",
            quarantined=await to_thread.run_sync(healthy, limiter=looking),
            dispatcher="alive" if dispatcher else "off",
            heartbeat=heartbeat.state if heartbeat else "off",
            chain="signed" if world.anchors and world.anchors.keys else "unsigned",
        )
