"""Deliveries under way, each in a thread of its own with a deadline: what hangs in one lane holds up no other.

A thread cannot be ended from outside. One over its deadline is given up: its row is free again, and the thread ends with whatever holds
it, or with the process. While a channel hangs, one delivery at a time probes it and the others fail at once: that brings the next channel
in, and neither rows nor threads heap up behind it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

from mlrunbook.domain.errors import Transient
from mlrunbook.store.outbox import CLAIM_OF_PAGES_S, CLAIM_S, Item, Lane

log = logging.getLogger("mlrunbook.dispatcher")

MARGIN_S = 2.0  # given up before another dispatcher may claim the row
MAX_HANGING = 8
SLOW_S = 5.0  # a failure that took this long is of a channel that hangs


def lane_of(item: Item) -> Lane:
    channel = item.payload.get("channel") if isinstance(item.payload, dict) else None
    return Lane(item.kind, channel if channel is None else str(channel))


@dataclass(eq=False)
class Attempt:
    item: Item
    began_s: float
    done: Future[None] = field(default_factory=Future)
    given_up: bool = False

    @property
    def deadline_s(self) -> float:
        return (CLAIM_OF_PAGES_S if self.item.kind == "page" else CLAIM_S) - MARGIN_S


class Lanes:
    """`carry_out` delivers one row, notes how that ended and says whether it went out; `failed` notes it for one that did not end."""

    def __init__(
        self,
        carry_out: Callable[[Item], bool],
        failed: Callable[[Item, Exception], None],
        *,
        monotonic: Callable[[], float],
        ended: Callable[[], None],
    ) -> None:
        self._carry_out, self._failed, self._monotonic, self._ended = carry_out, failed, monotonic, ended
        self._attempts: dict[Lane, set[Attempt]] = {}
        self._hanging: set[Lane] = set()
        self._lock = threading.Lock()

    def under_way(self, lane: Lane) -> int:
        """Tries that are not given up."""
        with self._lock:
            return sum(not a.given_up for a in self._attempts.get(lane, ()))

    def start(self, item: Item) -> Attempt:
        attempt, lane = Attempt(item, self._monotonic()), lane_of(item)
        with self._lock:
            mine = self._attempts.get(lane, set())
            given_up = sum(a.given_up for a in mine)
            probed = lane in self._hanging and given_up < len(mine)
            if refused := given_up >= MAX_HANGING or probed:
                words = f"channel {lane.channel} hangs" if lane.channel else f"{given_up} earlier tries of {lane.kind} hang"
            else:
                self._attempts.setdefault(lane, set()).add(attempt)
        if refused:
            self._refuse(attempt, Transient(words))
            return attempt
        try:
            threading.Thread(target=self._run, args=(attempt, lane), name=f"deliver-{lane.kind}", daemon=True).start()
        except RuntimeError as error:  # no thread to be had
            self._leave(attempt, lane)
            self._refuse(attempt, Transient(str(error)))
        return attempt

    def give_up_overdue(self) -> None:
        now_s = self._monotonic()
        with self._lock:
            overdue = [a for some in self._attempts.values() for a in some if not a.given_up and now_s - a.began_s > a.deadline_s]
            for attempt in overdue:
                attempt.given_up = True
                self._note_hanging(lane_of(attempt.item))
        for attempt in overdue:
            self._refuse(attempt, Transient(f"no answer in {attempt.deadline_s:.0f} s"))

    def longest_s(self, kind: str) -> float:
        """How long the oldest delivery of this kind has been under way, given up or not; 0 while there is none."""
        with self._lock:
            began = [a.began_s for lane, some in self._attempts.items() if lane.kind == kind for a in some]
        return self._monotonic() - min(began) if began else 0.0

    def finish(self, within_s: float) -> None:
        """Wait for what is under way and has not hung."""
        with self._lock:
            waiting = [a.done for some in self._attempts.values() for a in some if not a.given_up]
        wait(waiting, within_s)

    def _run(self, attempt: Attempt, lane: Lane) -> None:
        went_out = False
        try:
            went_out = self._carry_out(attempt.item)
        except Exception:  # its claim runs out by itself
            log.exception("%s %s: how the try ended is not noted", lane.kind, attempt.item.dedup_key)
        except BaseException as error:
            self._leave(attempt, lane)
            self._end(attempt, error)
            return
        with self._lock:
            if went_out:
                self._hanging.discard(lane)
            elif self._monotonic() - attempt.began_s > SLOW_S:
                self._note_hanging(lane)
        self._leave(attempt, lane)
        self._end(attempt)

    def _note_hanging(self, lane: Lane) -> None:
        if lane.channel is not None:
            self._hanging.add(lane)

    def _refuse(self, attempt: Attempt, error: Exception) -> None:
        try:
            self._failed(attempt.item, error)
        except Exception:  # its claim runs out by itself
            log.exception("%s %s: cannot note that it failed (%s)", attempt.item.kind, attempt.item.dedup_key, error)
        self._end(attempt)

    def _end(self, attempt: Attempt, error: BaseException | None = None) -> None:
        with self._lock:
            if not attempt.done.done():
                attempt.done.set_exception(error) if error else attempt.done.set_result(None)
        self._ended()

    def _leave(self, attempt: Attempt, lane: Lane) -> None:
        with self._lock:
            self._attempts[lane].discard(attempt)
            if not self._attempts[lane]:
                del self._attempts[lane]
