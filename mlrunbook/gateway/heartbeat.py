"""The gateway's sign of life to a watch outside: while due pages go out it pings MLRUNBOOK_HEARTBEAT_URL, so that silence alarms there.

The protocol is that of healthchecks.io (https://healthchecks.io/docs/signaling_failures/): a POST of the URL says all is well, one of
URL/fail that it is not, with the reason as text. A thread of its own asks the store and the dispatcher; it holds up no page, and a
dispatcher that hangs cannot keep it beating.
"""

from __future__ import annotations

import logging
import threading
from typing import Literal

import httpx

from mlrunbook.gateway import late_pages
from mlrunbook.gateway.dispatcher import Dispatcher
from mlrunbook.response.world import World

log = logging.getLogger("mlrunbook.heartbeat")

TIMEOUT_S = 5.0
STOP_S = 1.0

State = Literal["waiting", "ok", "failing"]


class Heartbeat:
    """`start()` and `stop()` run it in a thread; `beat()` is one look and one ping. The URL is a secret: it is never logged.

    The first ping comes after `every_s`: a gateway that is restarted over and over never says that all is well.
    """

    def __init__(self, world: World, dispatcher: Dispatcher, url: str, *, every_s: float = 60.0) -> None:
        self._world, self._dispatcher = world, dispatcher
        self._url, self._every_s = url, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self.state: State = "waiting"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(STOP_S)  # a ping under way ends with the process

    def beat(self) -> None:
        trouble = self._trouble()
        sent = self._ping(trouble)
        state: State = "ok" if sent and trouble is None else "failing"
        if trouble and state != self.state:
            log.error("pages do not go out: %s", trouble)
        elif state == "ok" and self.state == "failing":
            log.info("pages go out, and the outside watch hears of it")
        self.state = state

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.beat()
            except Exception:  # it must go on: its silence wakes people
                log.exception("heartbeat: unexpected, going on")

    def _trouble(self) -> str | None:
        """Why pages do not go out, in one line without a secret; None while they do."""
        if self._dispatcher.is_stuck:
            return "the dispatcher of the gateway is stuck: restart the gateway"
        try:
            late = late_pages.find(self._world)
        except Exception as error:  # whatever it is, we cannot say that pages go out
            log.warning("heartbeat: %s", error)
            return "the incident store does not answer: is PostgreSQL up?"
        if late:
            return (
                f"a page has been due for {late.late_s:.0f} s and has not gone out: look at the gateway's log and `mlrunbook channel test`"
            )
        return None

    def _ping(self, trouble: str | None) -> bool:
        try:
            # The proxy of the environment counts: the watch is outside.
            answer = httpx.post(_fail_url(self._url) if trouble else self._url, content=trouble or "", timeout=TIMEOUT_S)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # its text may hold the URL
            log.warning("the outside watch (MLRUNBOOK_HEARTBEAT_URL) was not reached: %s", type(error).__name__)
            return False
        if not answer.is_success:
            log.warning("the outside watch (MLRUNBOOK_HEARTBEAT_URL) answered %d", answer.status_code)
        return answer.is_success


def _fail_url(url: str) -> httpx.URL:
    parsed = httpx.URL(url)
    return parsed.copy_with(path=parsed.path.rstrip("/") + "/fail")
