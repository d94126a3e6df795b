"""What happens to the incidents that somebody watches: server-sent events, for any number of open pages.

One look a second at the heads of their chains serves every page of this process, whichever incident it shows; new entries are read and
rendered once. Nobody watches: nothing is looked at. It needs no LISTEN, which a pooler in transaction mode has not, and no trigger, whose
NOTIFY would make every writer of the store wait for its turn to commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import HTTPException

from mlrunbook.base.edge import RETRY_AFTER_S
from mlrunbook.domain.chain import Length
from mlrunbook.domain.errors import Transient
from mlrunbook.response.world import World
from mlrunbook.store import chain_heads, timeline
from mlrunbook.store.timeline import Entry

log = logging.getLogger(__name__)

EVERY_S = 1.0
QUIET_S = 15.0  # after which a stream says that it is there: proxies end what is silent for a minute
MOST, MOST_OF_ONE = 300, 20  # streams of this process, and of one person: a page in the background holds none
AT_ONCE = 200  # entries of one read
KEPT = 200  # entries of an incident that are kept rendered
CHANGED, SIGNED_OUT = "changed", "signed-out"
NOTHING = Length(0, 0)

T = TypeVar("T")
LATER = {"Retry-After": str(RETRY_AFTER_S)}
Render = Callable[[Entry], str]  # one line of HTML


@dataclass
class _Watched:
    """An incident that pages follow. `recent`: the newest entries, rendered."""

    head: Length | None = None
    recent: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=KEPT))
    followers: int = 0


class Live:
    """The streams of one process."""

    def __init__(self, world: World, render: Render, *, every_s: float = EVERY_S, quiet_s: float = QUIET_S) -> None:
        self._world, self._render, self._every_s, self._quiet_s = world, render, every_s, quiet_s
        self._watched: dict[str, _Watched] = {}
        self._of_one: Counter[str] = Counter()
        self._reads = CapacityLimiter(4)  # threads of its own: a thousand pages that come back at once take none from requests
        self._looked = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def streams(self) -> int:
        return self._of_one.total()

    def take_place(self, person: str) -> None:
        """For one stream more; `give_back` it. 503 where there is none, and pages go on without."""
        if self._stopping or self.streams >= MOST or self._of_one[person] >= MOST_OF_ONE:
            raise HTTPException(503, "too many live pages are open: this one shows what is new when you reload it", LATER)
        self._of_one[person] += 1

    def give_back(self, person: str) -> None:
        self._of_one[person] -= 1

    def stop(self) -> None:
        """Every stream ends now; browsers come back to the next process. From any thread, and from a signal's handler."""
        self._stopping = True
        if self._task is not None:
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    async def follow(
        self, incident_id: str, *, after: int, shown: Length | None, still_allowed: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[str]:
        """Events as text: the entries after that one, each with its number as id; `changed` when anything did; signs of life.

        Nothing is lost between two connections: who comes back says which entry was the last. `shown`: how long the chain was that the page
        shows; None: it must look anew. It ends when the visitor may no longer read, and when the process stops.
        """
        watched = self._watched.setdefault(incident_id, _Watched())
        watched.followers += 1
        try:
            async for said in self._following(incident_id, watched, after, shown, still_allowed):
                yield said
        finally:
            watched.followers -= 1
            if not watched.followers:
                self._watched.pop(incident_id, None)

    async def _following(
        self, incident_id: str, watched: _Watched, last: int, shown: Length | None, still_allowed: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[str]:
        clock = asyncio.get_running_loop().time
        sign_of_life = clock() + self._quiet_s
        yield ": here\n\n"
        while not self._stopping:
            head = watched.head
            while head and head.entries > last:
                found = await self._after(incident_id, watched, last)
                for number, html in found:
                    yield f"id: {number}\ndata: {html}\n\n"
                last = found[-1][0] if found else head.entries  # none: somebody has deleted rows
            if head and head != shown:
                yield f"event: {CHANGED}\ndata: {head}\n\n"
                shown = head
            await self._news(watched, head, sign_of_life - clock())
            if clock() >= sign_of_life and not self._stopping:
                if not await still_allowed():
                    yield f"event: {SIGNED_OUT}\ndata: over\n\n"
                    return
                yield ": here\n\n"
                sign_of_life = clock() + self._quiet_s

    async def _news(self, watched: _Watched, head: Length | None, within_s: float) -> None:
        """Return once there is any, and at the latest after that long."""
        if self._task is None:
            self._task = asyncio.create_task(self._look_on())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s), self._looked:
                await self._looked.wait_for(lambda: watched.head != head or self._stopping)

    async def _after(self, incident_id: str, watched: _Watched, last: int) -> Sequence[tuple[int, str]]:
        if watched.recent and watched.recent[0][0] <= last + 1:
            return [one for one in watched.recent if one[0] > last]
        return await self.read(partial(self._entries, incident_id, last))

    async def _look_on(self) -> None:
        """Until nobody watches."""
        try:
            while self._watched and not self._stopping:
                try:
                    await self._look()
                except Transient as error:
                    log.warning("live pages stand still: %s", error)
                except Exception:
                    log.exception("live pages could not look; they look again")
                await asyncio.sleep(self._every_s)
        finally:
            self._task = None  # before anything is waited for: who comes now begins anew
            async with self._looked:
                self._looked.notify_all()

    async def _look(self) -> None:
        known = {incident_id: one.head for incident_id, one in self._watched.items()}
        heads, new = await self.read(partial(self._seen, known))
        for incident_id, head in heads.items():
            if (watched := self._watched.get(incident_id)) is not None:
                watched.recent.extend(new.get(incident_id, ()))
                if watched.recent and watched.recent[-1][0] != head.entries:
                    watched.recent.clear()  # more came than one look reads: each stream reads for itself
                watched.head = head
        async with self._looked:
            self._looked.notify_all()

    def _seen(self, known: dict[str, Length | None]) -> tuple[dict[str, Length], dict[str, list[tuple[int, str]]]]:
        """The heads, and the entries since the last look."""
        with self._world.transaction() as conn:
            heads = chain_heads.lengths(conn, known)
        grown = {i: was.entries for i, was in known.items() if was and heads.get(i, NOTHING).entries > was.entries}
        return heads, {incident_id: self._entries(incident_id, after) for incident_id, after in grown.items()}

    def _entries(self, incident_id: str, after: int) -> list[tuple[int, str]]:
        with self._world.transaction() as conn:
            found = timeline.read(conn, incident_id, after=after, limit=AT_ONCE)
        return [(entry.seq, self._render(entry)) for entry in found]

    async def read(self, how: Callable[[], T]) -> T:
        return await to_thread.run_sync(how, limiter=self._reads)
