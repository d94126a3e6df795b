"""What the model server reads: an asset's newest features from Feast's online store.

Feast itself knows no health of a read: its feature server answers 200 to `/health` while the table is locked or gone. So a read here waits
two seconds for its turn and two for its answer at most, and its error says what is wrong.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from mlrunbook.adapters.feast.api import first_line, limit_waits, open_store
from mlrunbook.domain.errors import RunbookError, Transient
from mlrunbook.local.features.definitions import JOIN_KEY, SERVICE
from mlrunbook.local.platform.columns import RAW

if TYPE_CHECKING:
    from feast import FeatureStore

log = logging.getLogger(__name__)
LOCK_TIMEOUT_MS, STATEMENT_TIMEOUT_MS = 1500, 2000
TURN_S = 2.0
LOAD_S = 15.0  # a server that starts lets its first requests wait: refusing them would read as an outage
RETRY_S = 1.0  # between attempts to open the store
LOADING = "loading"
OK = "ok"
PROBE_ID = "probe"  # an asset that need not exist: the read costs the same


class OnlineFeatures:
    """`start()` once, then `read` from any thread. Reads take turns: Feast has one connection.

    The definitions are those of the registry, at most as old as its `cache_ttl_seconds`.
    """

    def __init__(self, repo: Path, service: str = SERVICE) -> None:
        self._repo, self._service = repo, service
        self._store: FeatureStore | None = None
        self._prepared: Any = None  # the connection that has our timeouts
        self._error: str | None = None
        self._turn = threading.Lock()
        self._opened = threading.Event()
        self._stop = threading.Event()

    @property
    def state(self) -> str:
        """ "loading", "ok", or what was wrong at the last attempt. Only a read or a probe changes it."""
        if self._error is not None:
            return self._error
        return LOADING if self._store is None else OK

    def start(self) -> None:
        """Import Feast and open the registry in the background, for as long as it takes."""
        threading.Thread(target=self._open, name="online-features", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def probe(self) -> None:
        """Read as a request would; Transient when that fails."""
        self.read([PROBE_ID])

    def read(self, asset_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The RAW features of each asset, in the order asked, None where the store has no value; ids may repeat.

        Feast's TTL does not count here: a row is returned however old it is. Transient, with the reason, when nothing can be read.
        """
        if self._store is None and (self._error or not self._opened.wait(LOAD_S)):
            raise Transient(f"the feature store is not ready: {self._error or 'it is being loaded'}")
        assert self._store is not None
        if not asset_ids:
            return []
        if not self._turn.acquire(timeout=TURN_S):
            raise Transient(self._error or f"reads of the feature store queue up: none ended for {TURN_S:g} s")
        try:
            with self._translated():
                columns = self._read(self._store, asset_ids)
        finally:
            self._turn.release()
        lacking = [name for name in RAW if name not in columns]
        if lacking:
            self._error = f"the feature service {self._service} lacks {', '.join(lacking)}; apply the definitions again"
            raise Transient(self._error)
        self._error = None
        return [dict(zip(RAW, map(_value, row), strict=True)) for row in zip(*(columns[name] for name in RAW), strict=True)]

    def _read(self, store: FeatureStore, asset_ids: Sequence[str]) -> dict[str, list[Any]]:
        try:
            return self._ask(store, asset_ids)
        except psycopg.OperationalError:
            if self._prepared is None or not self._prepared.closed:
                raise
            return self._ask(store, asset_ids)  # PostgreSQL was restarted since the last read: once more, on a new connection

    def _ask(self, store: FeatureStore, asset_ids: Sequence[str]) -> dict[str, list[Any]]:
        self._prepare(store)
        service = store.registry.get_feature_service(self._service, store.project, allow_cache=True)
        columns: dict[str, list[Any]] = store.get_online_features(features=service, entity_rows={JOIN_KEY: list(asset_ids)}).to_dict()
        return columns

    def _prepare(self, store: FeatureStore) -> None:
        """Give a new connection our time limits, once."""
        held = getattr(store._get_provider().online_store, "_conn", None)
        if held is None or held.closed or held is not self._prepared:
            self._prepared = limit_waits(store, lock_ms=LOCK_TIMEOUT_MS, statement_ms=STATEMENT_TIMEOUT_MS)

    def _open(self) -> None:
        while not self._stop.is_set():
            try:
                store = open_store(self._repo)
                with self._turn, self._translated():
                    self._read(store, [PROBE_ID])  # the first read of a process takes 0.3 s: not in a request
                self._store, self._error = store, None
                self._opened.set()
                return
            except Exception as error:  # whatever it is, the next attempt may go better, and nobody else makes one
                if not isinstance(error, RunbookError):
                    log.exception("the feature store cannot be opened; trying again")
                if self._error != str(error):
                    log.warning("%s", error)
                self._error = str(error)
            self._stop.wait(RETRY_S)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Feast's and PostgreSQL's errors as ours, and as our state."""
        from feast.errors import FeastError

        try:
            yield
        except (psycopg.Error, SQLAlchemyError, FeastError, ValueError, KeyError) as error:
            self._error = _sentence(error, self._service)
            raise Transient(self._error) from error


def _sentence(error: Exception, service: str) -> str:
    """What is wrong and what to do about it."""
    from feast.errors import FeatureServiceNotFoundException, FeatureViewNotFoundException

    reason = first_line(error)
    match error:
        case psycopg.errors.LockNotAvailable() | psycopg.errors.QueryCanceled():
            return f"the online store is locked: a read waited over {LOCK_TIMEOUT_MS / 1000:g} s; end what holds its tables"
        case psycopg.errors.UndefinedTable():
            return f"a table of the online store is gone ({reason}); apply the definitions and materialise"
        case psycopg.OperationalError() | psycopg.InterfaceError():
            return f"the online store cannot be reached ({reason}); is PostgreSQL up?"
        case psycopg.Error():
            return f"the online store refuses the read ({reason})"
        case SQLAlchemyError():
            return f"the registry of the feature store does not answer ({reason}); is its database up?"
        case FeatureServiceNotFoundException() | FeatureViewNotFoundException():
            return f"the registry has no feature service {service} that can be read ({reason}); apply the definitions"
    return f"Feast cannot read {service} ({reason}); compare the definitions with the registry"


def _value(value: Any) -> Any:
    """A null comes back as None, a NaN that somebody wrote as NaN: both are "not known"."""
    return None if isinstance(value, float) and math.isnan(value) else value
