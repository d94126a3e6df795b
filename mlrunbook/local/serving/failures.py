"""Every prediction that was asked for and not made is counted, by why: in Prometheus at once, in the store once that can be written."""

from __future__ import annotations

import logging
import threading
from collections import Counter as Tally
from datetime import UTC, datetime

from prometheus_client import Counter
from sqlalchemy import Engine
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlrunbook.base.authentication import PROVEN
from mlrunbook.base.db import transaction
from mlrunbook.domain.errors import RunbookError
from mlrunbook.local.platform import predictions

log = logging.getLogger(__name__)
PREDICT = "/predict"  # how the path of a prediction request ends
COUNTED = "counted"  # in the request's state: the predictor has done so
INTERNAL, BUSY, ISOLATED = "internal", "busy", "isolated"
MOST_PENDING = 10_000  # minutes and kinds that wait for the store: a week of every kind


class Failures:
    """`note` never waits and never fails. What the store has not taken waits for the next `flush`, with the minute it belongs to."""

    def __init__(self, model: str, engine: Engine, counter: Counter) -> None:
        self._model, self._engine, self._counter = model, engine, counter
        self._pending: Tally[tuple[datetime, str]] = Tally()
        self._lock = threading.Lock()
        self._complained = False

    def note(self, kind: str, count: int = 1, *, stored: bool = True) -> None:
        """`stored` False: for Prometheus alone, where nobody's service has failed."""
        self._counter.labels(self._model, kind).inc(count)
        minute = datetime.now(UTC).replace(second=0, microsecond=0)
        with self._lock:
            if stored and len(self._pending) < MOST_PENDING:
                self._pending[minute, kind] += count

    def flush(self) -> None:
        """Write what is pending; what cannot be written stays."""
        with self._lock:
            pending, self._pending = self._pending, Tally()
        if not pending:
            return
        try:
            with transaction(self._engine) as conn:
                for (minute, kind), count in sorted(pending.items()):
                    predictions.count_errors(conn, model=self._model, kind=kind, count=count, at=minute)
            self._complained = False
        except Exception as error:  # a caller must hear of the first failure, not of this one
            with self._lock:
                self._pending.update(pending)
            if not self._complained:
                said = str(error) if isinstance(error, RunbookError) else type(error).__name__
                log.warning("failed predictions cannot be counted in the store yet: %s", said)
            self._complained = True


class CountFailures:
    """Pure ASGI, around everything: a prediction request that failed before or after the predictor, such as in validation or for want of a
    place to run in. Only of senders who are proven: the others are counted at the door."""

    def __init__(self, app: ASGIApp, *, failures: Failures) -> None:
        self._app, self._failures = app, failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith(PREDICT):
            await self._app(scope, receive, send)
            return
        status = 500  # unless something is answered

        async def answering(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, answering)
        finally:
            if status >= 400 and scope.get(PROVEN) and not scope.get("state", {}).get(COUNTED):
                self._failures.note(kind_of(status))


def kind_of(status: int) -> str:
    """Of a failure that nobody has named."""
    if status == 404:
        return predictions.UNKNOWN_MODEL
    if status == 503:
        return BUSY
    return INTERNAL if status >= 500 else predictions.INVALID_REQUEST
