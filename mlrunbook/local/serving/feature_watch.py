"""Whether features can be read: asked again and again in the background, so that `/health` never waits for the feature store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from mlrunbook.domain.errors import RunbookError

log = logging.getLogger(__name__)
NOT_CONFIGURED, LOADING, OK, FAILING = "not_configured", "loading", "ok", "failing"
PROBE_S = 2.0
FIRST_PROBES_S = 0.5  # until a read worked: somebody waits for the start
# A read ends within 2 s a view or fails: one that takes longer than this hangs.
HUNG = timedelta(seconds=5)
# Importing Feast and opening the registry takes seconds, and whoever starts both at once has not applied the definitions yet.
FIRST_LOAD = timedelta(seconds=30)


class Source(Protocol):
    """What `mlrunbook.local.serving.online_features.OnlineFeatures` is: `read` and `probe` raise Transient with the reason."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def probe(self) -> None: ...
    def read(self, asset_ids: Sequence[str]) -> list[dict[str, Any]]: ...


@dataclass(frozen=True)
class Seen:
    """The last probe's end. `error` while it fails, which it does since `failing_since`."""

    state: str
    checked_at: datetime | None = None
    failing_since: datetime | None = None
    error: str | None = None

    def as_wire(self) -> dict[str, Any]:
        return {"state": self.state, "checkedAt": self.checked_at, "failingSince": self.failing_since, "error": self.error}


class FeatureWatch:
    """Probes `source` every PROBE_S in a thread of its own. Failures of the first half minute count as loading until a read worked."""

    def __init__(self, source: Source, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._source, self._clock = source, clock
        self._began_at = clock()
        self._last = Seen(LOADING)
        self._first_failure_at: datetime | None = None
        self._has_worked = False
        self._asked_at: datetime | None = None  # of a probe that has not ended
        self._stop = threading.Event()

    def start(self) -> None:
        self._source.start()
        threading.Thread(target=self._run, name="feature-watch", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()
        self._source.stop()

    def seen(self) -> Seen:
        """Never waits."""
        last, asked_at = self._last, self._asked_at
        if asked_at is not None and last.state == OK and self._clock() - asked_at >= HUNG:
            return Seen(FAILING, last.checked_at, asked_at, f"a read has not ended for {HUNG.total_seconds():.0f} s")
        return last

    def look(self) -> None:
        """Probe once."""
        self._asked_at = self._clock()
        try:
            self._source.probe()
        except Exception as error:  # whatever a store raises, features cannot be read
            self._failed(error)
        else:
            if self._last.state == FAILING:
                log.warning("features can be read again")
            self._has_worked, self._first_failure_at = True, None
            self._last = Seen(OK, self._clock())
        finally:
            self._asked_at = None

    def _failed(self, error: Exception) -> None:
        now = self._clock()
        if self._first_failure_at is None:
            self._first_failure_at = self._asked_at or now
        said = str(error) if isinstance(error, RunbookError) else f"{type(error).__name__}: {error}"
        if not self._has_worked and now - self._began_at < FIRST_LOAD:
            self._last = Seen(LOADING, now, error=said)
            return
        if self._last.error != said:
            log.warning("features cannot be read: %s", said)
        self._last = Seen(FAILING, now, self._first_failure_at, said)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(PROBE_S if self._has_worked else FIRST_PROBES_S)
