"""The dispatcher: delivers what is due in the outbox, and starts again what has gone silent.

Any number may run against one store; the rows they claim do not overlap. It pages by itself, so that nobody goes unpaged
because Prefect is down, and it never gives up on a row: an accepted alert is never lost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from mlrunbook.base.spare_descriptors import SpareDescriptors
from mlrunbook.domain.communication.console_links import with_link
from mlrunbook.domain.communication.messages import Rendered, bare_page
from mlrunbook.domain.errors import NotFound, Refused, RunbookError
from mlrunbook.domain.incident import Incident, Severity
from mlrunbook.gateway import payloads
from mlrunbook.gateway.lanes import Attempt, Lanes
from mlrunbook.gateway.registry_watch import RegistryWatch
from mlrunbook.ports import Message
from mlrunbook.response.communication import chain, channel_fallback, escalation, regulatory_clocks, set_aside
from mlrunbook.response.communication.notifications import link_of, page_text, settle_late
from mlrunbook.response.containment import emergency
from mlrunbook.response.execution import approvals
from mlrunbook.response.lifecycle import alert_intake, flapping, post_close_check
from mlrunbook.response.review import action_items, reminders
from mlrunbook.response.world import World
from mlrunbook.store import incidents, leases, outbox, timeline
from mlrunbook.store.outbox import EXPIRY, ORDER_OVERDUE, RESPONSE, SETTLE, SILENCE_ENDS, UPDATE

log = logging.getLogger("mlrunbook.dispatcher")

RESPOND = "respond"
URGENT: tuple[str, ...] = ("page", "start_run", "resume_run", RESPONSE, ORDER_OVERDUE, regulatory_clocks.TIMER)
ORDINARY: tuple[str, ...] = (
    SETTLE,
    "message",
    UPDATE,
    EXPIRY,
    flapping.TIMER,
    SILENCE_ENDS,
    reminders.TIMER,
    post_close_check.TIMER,
    action_items.TIMER,
)
TIMERS = {
    UPDATE: escalation.send_update,
    RESPONSE: escalation.acknowledgement_overdue,
    flapping.TIMER: flapping.quiet,
    reminders.TIMER: reminders.remind,
    action_items.TIMER: action_items.remind,
    EXPIRY: approvals.expire,
    ORDER_OVERDUE: emergency.overdue,
}
"""What the store alone decides. Each is `(conn, policy, row, *, now)`."""
LOOK_AGAIN_S = 300.0  # how often a run that waits for a human is checked to be still there
TRY_AGAIN_S = 30.0  # when it could not be checked
EXPEDITE_AFTER = timedelta(seconds=10)  # a resumed run is claimed in 1 s where a place is free, later on a busy machine
STUCK_S = 120.0  # a round takes milliseconds, and a delivery ends at its deadline
UNKNOWN_AFTER = timedelta(minutes=5)  # a kind that a newer gateway has put: it may be about to deliver it
LOOK_FOR_UNKNOWN_EVERY = timedelta(seconds=30)
FINISH_S = 2.0  # what is under way at the end may end in this time; what is cut off goes out again
WORKERS = 4  # for each lane


class Dispatcher:
    """`run()` loops until `stop()`; `turn()` is one pass, for tests with a clock of their own.

    Each kind of row has threads of its own, pages and messages for each channel: a mail server that hangs holds up mails, never a page.
    The loops only claim and start; what a channel or Prefect does cannot stop them.
    """

    def __init__(
        self, world: World, *, every_s: float = 1.0, workers: int = WORKERS, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._world, self._every_s, self._monotonic, self._workers = world, every_s, monotonic, workers
        self._stop, self._spares = threading.Event(), SpareDescriptors()
        self._more = {kinds: threading.Event() for kinds in (URGENT, ORDINARY)}  # a thread is free again
        self._stop_looking = threading.Event()
        self._heads, self._registries = chain.Keeping(world), RegistryWatch(world, monotonic=monotonic)
        self._urgent_done_at = self._revived_at = monotonic()
        self._looked_for_unknown: datetime | None = None
        self._lanes = {kinds: Lanes(self._try, self._failed, monotonic=monotonic, ended=more.set) for kinds, more in self._more.items()}
        self._deliver = {
            "page": self._send,
            "message": self._send,
            SETTLE: self._settle,
            "start_run": self._start_run,
            "resume_run": self._resume_run,
            post_close_check.TIMER: self._confirm_recovery,
            regulatory_clocks.TIMER: self._remind_of_clock,
            SILENCE_ENDS: self._end_silence,
        } | dict.fromkeys(TIMERS, self._go_off)

    def run(self) -> None:
        loops = {
            "dispatcher-ordinary": lambda: self._loop(lambda: len(self._start_due(ORDINARY)), self._more[ORDINARY]),
            "dispatcher-runs": lambda: self._loop(self._look_after_runs, self._stop_looking),
            "dispatcher-anchors": lambda: self._loop(self._heads.look, self._stop_looking),
            "dispatcher-registries": lambda: self._loop(self._registries.look, self._stop_looking),
        }
        beside = [threading.Thread(target=loop, name=name, daemon=True) for name, loop in loops.items()]
        for thread in beside:
            thread.start()
        with self._spares:
            self._loop(self._urgent, self._more[URGENT])
        for thread in beside:
            thread.join(timeout=5)
        for lanes in self._lanes.values():
            lanes.finish(FINISH_S)

    @property
    def world(self) -> World:
        return self._world

    @property
    def is_stuck(self) -> bool:
        """No round has ended for too long: its thread hangs, has died, or fails every time (the store is away). Or a page hangs."""
        now_s = self._monotonic()
        return now_s - min(self._urgent_done_at, self._revived_at) > STUCK_S or self._lanes[URGENT].longest_s("page") > STUCK_S

    def _urgent(self) -> int:
        started = len(self._start_due(URGENT))
        self._urgent_done_at = self._monotonic()
        return started

    def _look_after_runs(self) -> int:
        busy = self._revive()
        if self._looked_for_unknown is None or abs(self._world.now() - self._looked_for_unknown) >= LOOK_FOR_UNKNOWN_EVERY:
            self._report_unknown()  # such rows come with another version of the gateway: seldom
            self._looked_for_unknown = self._world.now()
        self._revived_at = self._monotonic()
        return busy

    def _loop(self, work: Callable[[], int], more: threading.Event) -> None:
        while not self._stop.is_set():
            more.clear()
            try:
                busy = work()
            except RunbookError as error:  # the store is away: keep trying, say so
                log.warning("dispatcher: %s", error)
                busy = 0
            except Exception:
                log.exception("dispatcher: unexpected, going on")
                busy = 0
            if not busy:
                more.wait(self._every_s)

    def stop(self) -> None:
        """Start nothing more. What is under way ends with its thread or with the process, and goes out again if it was cut off."""
        self._stop.set()
        for more in (self._stop_looking, *self._more.values()):
            more.set()

    def turn(self) -> int:
        """Deliver what is due, and revive what went silent; returns how much there was to do."""
        urgent = self._wait_for(self._start_due(URGENT))
        self._urgent_done_at = self._monotonic()
        done = urgent + self._look_after_runs() + self._wait_for(self._start_due(ORDINARY))
        self._heads.look()
        self._registries.look()
        return done

    @staticmethod
    def _wait_for(attempts: list[Attempt]) -> int:
        for attempt in attempts:
            attempt.done.result(attempt.deadline_s)
        return len(attempts)

    def _start_due(self, kinds: tuple[str, ...]) -> list[Attempt]:
        """Claim what the lanes have threads for, and start it."""
        lanes = self._lanes[kinds]
        lanes.give_up_overdue()
        items: list[outbox.Item] = []
        with self._world.transaction() as conn:
            now = self._world.now()
            for lane in outbox.lanes_due(conn, kinds, now=now):
                if free := self._workers - lanes.under_way(lane):
                    items += outbox.claim(conn, now=now, lane=lane, limit=free)
        return [lanes.start(item) for item in items]

    def _try(self, item: outbox.Item) -> bool:
        """Whether it went out, or was put out of the way."""
        if why := payloads.unreadable(item):
            self._set_aside(item, why)
            return True
        try:
            self._spares.at_need(lambda: self._deliver[item.kind](item))
        except Exception as error:  # whatever it was, the row must go out: note it and try again
            self._failed(item, error)
            return False
        return True

    def _failed(self, item: outbox.Item, error: Exception) -> None:
        level = logging.WARNING if isinstance(error, RunbookError) else logging.ERROR
        log.log(level, "%s %s, attempt %d: %s", item.kind, item.dedup_key, item.attempts, error, exc_info=error if level > 30 else None)
        with self._world.transaction() as conn:
            noted = outbox.failed(conn, item, str(error) or type(error).__name__, now=self._world.now())
        if noted:
            with self._world.transaction() as conn:  # apart: whatever this meets, the row is to be tried again
                channel_fallback.note_failure(
                    conn, self._world.policy, item, error, has_address=self._world.notifier.has_address, now=self._world.now()
                )

    def _set_aside(self, item: outbox.Item, why: str) -> None:
        log.error("set aside: row %d of the outbox (%s %s): %s", item.id, item.kind, item.dedup_key, why)
        with self._world.transaction() as conn:
            set_aside.unreadable(conn, self._world.policy, item, why, now=self._world.now())

    def _report_unknown(self) -> None:
        now = self._world.now()
        with self._world.transaction() as conn:
            items = outbox.unknown(conn, tuple(self._deliver), due_before=now - UNKNOWN_AFTER)
        for item in items:
            log.error("row %d of the outbox is of a kind this version does not know: %s", item.id, item.kind)
            with self._world.transaction() as conn:
                set_aside.unknown(conn, self._world.policy, item, now=now)

    def _send(self, item: outbox.Item) -> None:
        """Send, then mark: killed in between, it goes out again. A page may repeat but is never missed."""
        incident_id, p = str(item.incident_id), dict(item.payload)
        is_page, severity = item.kind == "page", None
        if is_page:
            with self._world.transaction() as conn:
                if not outbox.stands(conn, item):  # resolved or acknowledged since it was claimed
                    return
                incident = incidents.get(conn, incident_id)
            text = self._text_of_page(p, incident)
            p |= {"subject": text.subject, "body": text.body}
            severity = str(incident.severity)
        head = chain.sent(self._world, incident_id)
        link = link_of(self._world.public_url, p, incident_id)
        body = chain.with_head(with_link(p["body"], link), head)
        message = Message(item.dedup_key, incident_id, p["channel"], p["subject"], body, page=is_page, severity=severity, link=link)
        self._world.notifier.send(message)
        with self._world.transaction() as conn:
            now = self._world.now()
            words = f"Paged {p['to']}: {p['reason']}" if is_page else f"Told {p['to']}: {p['subject']}"
            words += f" (attempt {item.attempts})" if item.attempts > 1 else ""
            data = {"channel": p["channel"], "to": p["to"]} | chain.noted(head)
            timeline.append(conn, incident_id, item.kind, words, actor="dispatcher", at=now, data=data)
            outbox.delivered(conn, item, now=now)  # after the incident: everybody locks it before rows of the outbox
            if is_page:
                settle_late(conn, incident_id, item.id, now=now)
                has_address = self._world.notifier.has_address
                channel_fallback.note_that_nobody_was_called(conn, self._world.policy, item, has_address=has_address, now=now)

    def _text_of_page(self, payload: dict[str, Any], incident: Incident) -> Rendered:
        """Whatever is wrong with what the incident has recorded, somebody is called."""
        try:
            with self._world.transaction() as conn:
                return page_text(conn, self._world.policy, payload, incident, now=self._world.now())
        except RunbookError:
            raise
        except Exception:
            log.exception("the page about %s goes out without details", incident.id)
            return bare_page(incident, payload["to"], payload["reason"])

    def _settle(self, item: outbox.Item) -> None:
        channel, action = str(item.payload["channel"]), item.payload["action"]
        told = self._world.notifier.settle(Message(item.dedup_key, str(item.incident_id), channel, "", ""), action)
        with self._world.transaction() as conn:
            if told:
                words = f"The paging service of {channel} was told: {action}d"
                timeline.append(conn, str(item.incident_id), "delivery", words, actor="dispatcher", at=self._world.now())
            outbox.delivered(conn, item, now=self._world.now())

    def _go_off(self, item: outbox.Item) -> None:
        """A timer of the store: what it does and that it went off are one transaction."""
        with self._world.transaction() as conn:
            now = self._world.now()
            TIMERS[item.kind](conn, self._world.policy, item, now=now)
            outbox.delivered(conn, item, now=now)

    def _start_run(self, item: outbox.Item) -> None:
        incident_id, generation = str(item.incident_id), int(item.payload["generation"])
        run_id = self._run_of(incident_id, generation)
        with self._world.transaction() as conn:
            now = self._world.now()
            leases.started(conn, incident_id, generation)
            outbox.delivered(conn, item, now=now)
            text = f"Flow run started (generation {generation}): {item.payload['why']}"
            timeline.append(conn, incident_id, "run", text, actor="dispatcher", at=now, data={"run_id": run_id})

    def _resume_run(self, item: outbox.Item) -> None:
        with self._world.transaction() as conn:
            lease = leases.get(conn, str(item.incident_id))
        waits = lease.state == "waiting" and lease.holder is not None
        if not waits:
            self._expedite(lease)
        else:
            answer = {"decision": "decided_elsewhere", "name": "dispatcher", "comment": str(item.payload["why"])}
            try:
                self._world.orchestrator.resume(str(lease.holder), answer)
            except (Refused, NotFound) as error:
                self._restart(lease, f"the suspended run is gone ({error})")
        with self._world.transaction() as conn:
            now = self._world.now()
            if waits:  # a run that was not waiting reads by itself what has changed
                leases.resumed(conn, lease)
                key, at = f"expedite:{item.dedup_key}", now + EXPEDITE_AFTER
                outbox.put(conn, "resume_run", key, item.payload, now=now, incident_id=lease.incident_id, at=at)
            outbox.delivered(conn, item, now=now)

    def _confirm_recovery(self, item: outbox.Item) -> None:
        post_close_check.confirm(self._world, item)

    def _remind_of_clock(self, item: outbox.Item) -> None:
        regulatory_clocks.remind(self._world, item)

    def _end_silence(self, item: outbox.Item) -> None:
        alert_intake.end_silence(self._world, now=self._world.now())
        with self._world.transaction() as conn:
            outbox.delivered(conn, item, now=self._world.now())

    def _revive(self) -> int:
        with self._world.transaction() as conn:
            leases.look(conn, here := self._world.elapsed())
            silent = leases.silent(conn, here)
        for lease in silent:
            self._revived_at = self._monotonic()  # a Prefect that times out for each of many is slow, and does not hang
            try:
                self._look_after(lease)
            except Exception as error:  # one incident that cannot be looked after keeps no other waiting
                log.warning("cannot look after %s: %s", lease.incident_id, error)
                with self._world.transaction() as conn:
                    leases.look_later(conn, lease, after_s=TRY_AGAIN_S)
        return len(silent)

    def _look_after(self, lease: leases.Lease) -> None:
        """A run that waits for a human is left alone while it is there. Prefect being away is no proof that it is gone."""
        there = self._is_suspended(lease) if lease.state == "waiting" else self._queued_run(lease) is not None
        if there:
            with self._world.transaction() as conn:
                leases.look_later(conn, lease, after_s=LOOK_AGAIN_S if lease.state == "waiting" else TRY_AGAIN_S)
        else:
            self._restart(lease, f"generation {lease.generation} went silent while {lease.state}")
            if lease.holder:
                self._give_place_free(lease.holder)

    def _is_suspended(self, lease: leases.Lease) -> bool:
        try:
            return lease.holder is not None and self._world.orchestrator.is_suspended(lease.holder)
        except NotFound:
            return False

    def _queued_run(self, lease: leases.Lease) -> str | None:
        """The run, started or resumed, that waits for a worker and a place. Another one would only queue behind it."""
        run_id = None
        if lease.state == "running":
            run_id = lease.holder
        elif lease.state == "starting":
            with self._world.transaction() as conn:
                was_asked = outbox.is_delivered(conn, leases.start_key(lease.incident_id, lease.generation))
            run_id = self._run_of(lease.incident_id, lease.generation) if was_asked else None
        try:
            return run_id if run_id and self._world.orchestrator.is_queued(run_id) else None
        except NotFound:
            return None

    def _run_of(self, incident_id: str, generation: int) -> str:
        """The run of that generation, started if there is none: the idempotency key gives the same one each time."""
        return self._world.orchestrator.start(
            RESPOND,
            {"incident_id": incident_id},
            idempotency_key=f"{incident_id}:{generation}",
            name=incident_id,
            urgent=self._is_urgent(incident_id),
        )

    def _is_urgent(self, incident_id: str) -> bool:
        """Critical, or a person has ordered what is not in force yet: its run waits behind no other."""
        with self._world.transaction() as conn:
            incident = incidents.get(conn, incident_id)
            ordered = emergency.not_in_force(conn, self._world.policy, incident, now=self._world.now())
        return incident.severity is Severity.CRITICAL or bool(ordered)

    def _expedite(self, lease: leases.Lease) -> None:
        """What is urgent and queues with the ordinary goes to the front: by a new run, since Prefect moves none between queues."""
        if not self._is_urgent(lease.incident_id):
            return
        run_id = self._queued_run(lease)
        if run_id is None or not self._world.orchestrator.is_held_up(run_id):
            return
        self._restart(lease, "its run waited for a free place; urgent incidents go first")
        self._give_place_free(run_id)

    def _give_place_free(self, run_id: str) -> None:
        """A run that was replaced. Fenced off it is already: should this fail, it ends by itself at its next write."""
        try:
            self._world.orchestrator.cancel(run_id, "Replaced by a later run of the same incident")
        except RunbookError as error:
            log.warning("cannot cancel run %s: %s", run_id, error)

    def _restart(self, lease: leases.Lease, why: str) -> None:
        with self._world.transaction() as conn:
            if leases.get(conn, lease.incident_id, lock=True) != lease:
                return  # somebody moved it meanwhile
            now = self._world.now()
            timeline.append(conn, lease.incident_id, "run", f"Starting again: {why}", actor="dispatcher", at=now)
            leases.request_start(conn, lease.incident_id, why=why, now=now)
