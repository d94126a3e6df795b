"""The head of an incident's chain goes out with every notification, signed; and every head that changes is kept outside of the database."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, select

from mlrunbook.base.anchors import Anchors
from mlrunbook.domain.chain import Head, signed
from mlrunbook.domain.errors import Invalid
from mlrunbook.response.world import World
from mlrunbook.store import chain_heads, integrity
from mlrunbook.store.chain_heads import Changed

log = logging.getLogger(__name__)

AT_ONCE = 200
LATE_COMMITS = timedelta(minutes=1)
LOOK_BACK = timedelta(hours=1)  # what was written while no gateway ran


def sent(world: World, incident_id: str) -> Head | None:
    """The head as it goes out now. None when it cannot be read: that keeps no page from going out."""
    try:
        with world.transaction() as conn:
            head = chain_heads.get(conn, incident_id)
        return signed(incident_id, head, world.anchors.keys if world.anchors else ()) if head else None
    except Exception as error:
        log.warning("the head of %s does not go out with its message: %s", incident_id, error)
        return None


def with_head(body: str, head: Head | None) -> str:
    """As the last line: what people read first stays first."""
    return f"{body}\n\nChain {head}" if head else body


def noted(head: Head | None) -> dict[str, str]:
    """For the data of the timeline's entry about the message."""
    return {integrity.HEAD: str(head)} if head else {}


class Keeping:
    """Keeps the heads of chains that have grown since the last look in the world's anchors. A disk that fails or hangs stops this alone."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._from: tuple[datetime, str] | None = None
        self._kept: dict[str, Changed] = {}
        self._failed = False

    def look(self) -> int:
        """How many were kept."""
        anchors = self._world.anchors
        if anchors is None:
            return 0
        with self._world.transaction() as conn:
            now = conn.execute(select(func.now())).scalar_one()
            begin = self._from if self._from and self._from[0] <= now else (now - LOOK_BACK, "")
            self._kept = {name: one for name, one in self._kept.items() if one.at <= now}
            changed = chain_heads.changed_after(conn, *begin, limit=AT_ONCE)
        new = [one for one in changed if self._kept.get(one.incident_id) != one]
        try:
            for one in new:
                self._add(anchors, one)
        except OSError as error:
            if not self._failed:
                log.error("heads of chains cannot be kept in %s: %s", anchors.folder, error.strerror or error)
            self._failed = True
            return 0
        self._failed = False
        self._go_on(changed)
        return len(new)

    def _add(self, anchors: Anchors, one: Changed) -> None:
        try:
            anchors.add(one.incident_id, one.head, now=self._world.now())
        except Invalid as error:  # it holds up no other
            log.error("somebody has put a head into the database past mlrunbook: %s", error)

    def _go_on(self, changed: Sequence[Changed]) -> None:
        """After a full batch from its end; else a little before it, for what commits late with an earlier time."""
        self._kept |= {one.incident_id: one for one in changed}
        if len(changed) == AT_ONCE:
            self._from = (changed[-1].at, changed[-1].incident_id)
            return
        if self._kept:
            again = max(one.at for one in self._kept.values()) - LATE_COMMITS
            self._from = (again, "")
            self._kept = {name: one for name, one in self._kept.items() if one.at > again}
