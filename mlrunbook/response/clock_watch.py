"""Notices that the clock was set: before each transaction the process compares it with the time that has passed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Engine

from mlrunbook.base import db
from mlrunbook.domain.elapsed import Elapsed
from mlrunbook.store import clocks

log = logging.getLogger("mlrunbook.clock")

NOTE_EVERY_S = 10.0  # what a clock that was set back while the machine was off may cost


class ClockWatch:
    """One a process. Asks the store at the first transaction, after a jump, and now and then to note the time."""

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._noted_s = 0.0

    def settle(self, engine: Engine, now: Callable[[], datetime], elapsed: Callable[[], Elapsed]) -> None:
        at_s, passed_s = now().timestamp(), elapsed().total_s
        known = self._offset_s
        if known is not None and abs(at_s - passed_s - known) < clocks.JUMP_S and passed_s - self._noted_s < NOTE_EVERY_S:
            return
        with db.transaction(engine) as conn:
            offset_s, jump_s = clocks.settle(conn, now, elapsed)
        self._offset_s, self._noted_s = offset_s, passed_s
        if jump_s:
            log.warning(
                "the clock was set %s by %.0f s: due times come early rather than late, approvals end no later than they would have; "
                "check the time service of this machine",
                "forward" if jump_s > 0 else "back",
                abs(jump_s),
            )
