"""A team's Feast through its Python API: `ports.FeatureStore`.

`materialize` reads the source as Feast does and writes through Feast's online store, in chunks: natively a million entities take over
900 MB. It keeps three promises that Feast does not: the end never lies in the future, a future end that somebody left behind is set
right, and a row online is never replaced by an older one.
"""

from __future__ import annotations

import contextlib
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlrunbook.adapters.feast.api import close_connection, limit_waits, load_feast, open_store
from mlrunbook.adapters.feast.errors import StoreProblem, as_error, no_rows, online_problem, registry_problem, source_problem, view_missing
from mlrunbook.domain.communication.durations import utc
from mlrunbook.domain.errors import RunbookError
from mlrunbook.domain.investigation.feature_store import CLOCK_SKEW
from mlrunbook.domain.observed import FeatureFault, FeatureProblem, FeatureStoreState, ViewState
from mlrunbook.domain.policy.judging import FeatureStorePolicy

if TYPE_CHECKING:
    import pyarrow as pa
    from feast import FeatureView

CHUNK = 5_000  # entities written in one transaction: bounds memory, and how long a reader waits
ATTEMPTS = 3  # at a chunk, when another writer is in the way
SAME_MOMENT_S = 1.0  # many online stores keep whole seconds
READ_LIMIT_MS, WRITE_LIMIT_MS = 5_000, 60_000
YEAR = timedelta(weeks=52)  # how far Feast goes back for a view without a TTL
Progress = Callable[[str, int, int], None]
_turn = threading.Lock()  # of the process: Feast asks DuckDB over one connection, which refuses a second caller


class FeastStore:
    """Any thread may call; calls take turns, because Feast keeps one connection a store. Opened at the first call, which takes seconds."""

    def __init__(
        self, repo: Path, policy: FeatureStorePolicy, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), lock_limit_s: float = 3.0
    ) -> None:
        self._repo, self._policy, self._now, self._lock_limit_s = repo, policy, now, lock_limit_s
        self._store: Any = None

    def inspect(self, *, entities: int = 200, until: datetime | None = None) -> FeatureStoreState:
        with _turn:
            try:
                store = self._opened(READ_LIMIT_MS)
                return self._inspect(store, entities, until or self._now())
            except StoreProblem as error:
                self._close()
                return FeatureStoreState((), (error.problem,), read_ok=False)

    def materialize(self, views: Sequence[str], *, since: datetime | None, until: datetime, progress: Progress) -> None:
        with _turn:
            try:
                store = self._opened(WRITE_LIMIT_MS)
                for name in views:
                    self._load(store, self._view(store, name), since, min(until, self._now()), progress)
            except StoreProblem as error:
                self._close()
                raise as_error(error.problem) from error.__cause__
            except BaseException:
                self._close()  # a transaction may be open
                raise

    # --- reading ------------------------------------------------------------------------------------------------------------

    def _inspect(self, store: Any, entities: int, until: datetime) -> FeatureStoreState:
        with _registry():
            known = {view.name: view for view in store.list_batch_feature_views()}
        if not known:
            expected = ", ".join(self._policy.views)
            sentence = f"the registry is empty: {expected} should be there; restore it, or apply the definitions again (feast apply)"
            return FeatureStoreState((), (FeatureProblem(FeatureFault.REGISTRY_MISSING, sentence),), read_ok=False)
        problems = [view_missing(name) for name in self._policy.views if name not in known]
        problems += self._wrong_keys(store, [known[name] for name in self._policy.views if name in known])
        read = self._synthetic_read(store)
        if read is not None and not (problems and read.fault is FeatureFault.WRONG_ENTITY_KEY):
            problems.append(read)
        states = []
        for name in self._policy.views:
            if name in known:
                try:
                    states.append(self._state(store, known[name], entities, until, online=read is None))
                except StoreProblem as error:
                    problems.append(error.problem)
                    states.append(ViewState(name, job_end_at=known[name].most_recent_end_time))
        return FeatureStoreState(tuple(states), tuple(problems), read_ok=read is None)

    def _wrong_keys(self, store: Any, views: Sequence[FeatureView]) -> list[FeatureProblem]:
        """As callers ask: through the feature service, which may give a view's keys other names."""
        wanted, aliases = set(self._policy.join_keys), self._aliases(store)
        asked = [(view, keys) for view in views for keys in aliases.get(view.name, []) or [{}]]
        return [
            FeatureProblem(
                FeatureFault.WRONG_ENTITY_KEY,
                f"{view.name} is keyed by {', '.join(_asked_by(view, keys))}, but callers ask by {', '.join(sorted(wanted))}: "
                "every read fails; apply the definition with the right entity again",
                view.name,
            )
            for view, keys in asked
            if not wanted.issuperset(_asked_by(view, keys))
        ]

    def _aliases(self, store: Any) -> dict[str, list[dict[str, str]]]:
        """By view: the names that the feature service gives its keys, once for each time that it has the view."""
        try:
            service = store.get_feature_service(self._policy.service)
        except Exception:  # the read through it says what is wrong
            self._forget_transaction(store)
            return {}
        found: dict[str, list[dict[str, str]]] = {}
        for projection in service.feature_view_projections:
            found.setdefault(projection.name, []).append(dict(projection.join_key_map))
        return found

    def _synthetic_read(self, store: Any) -> FeatureProblem | None:
        """Read as the model server does, for an entity that need not exist: the read costs the same and fails the same."""
        keys = self._policy.join_keys
        try:
            types = {e.join_key: e.value_type.name for e in store.list_entities()}
            renamed = (keys for some in self._aliases(store).values() for keys in some)
            types |= {alias: types[key] for keys in renamed for key, alias in keys.items() if key in types}
            store.refresh_registry()
            service = store.get_feature_service(self._policy.service)
            rows = [{k: 0 if "INT" in types.get(k, "") else "probe" for k in keys}]
            # Full names: a service may have one view twice, under two names, and short ones would then collide.
            store.get_online_features(features=service, entity_rows=rows, full_feature_names=True)
        except Exception as error:
            self._forget_transaction(store)
            return online_problem(error, service=self._policy.service, join_keys=keys)
        return None

    def _state(self, store: Any, view: FeatureView, entities: int, until: datetime, *, online: bool) -> ViewState:
        end = view.most_recent_end_time  # first: what the source and the store gain meanwhile does not count against them
        window = min(timedelta(hours=self._policy.look_back_h), view.ttl or YEAR)
        rows = self._sample(store, view, until - window, until, entities)
        if not rows:
            raise StoreProblem(no_rows(view.name, f"in the last {window.total_seconds() / 3600:.0f} h"))
        stamp = _renamed(view, _origin(view).timestamp_field)
        keys, features = list(view.join_keys), [f.name for f in view.features]
        state: dict[str, Any] = {
            "job_end_at": end,
            "updated_at": _updated_at(store, view),
            "source_newest_at": max(utc(row[stamp]) for row in rows),
            "null_source": _null_shares(rows, features),
        }
        if not online:
            return ViewState(view.name, **state)
        found = self._online(store, view, keys, features, rows)
        behind, missing, lag_s = 0, 0, 0.0
        for row, (at, _) in zip(rows, found, strict=True):
            lag = (utc(row[stamp]) - at).total_seconds() if at else 0.0
            lag_s = max(lag_s, lag)
            if at is None and end is not None and utc(row[stamp]) <= end:
                missing += 1
            elif at is None or lag >= SAME_MOMENT_S:
                behind += 1
        there = [values for at, values in found if at]
        return ViewState(
            view.name,
            **state,
            online_newest_at=max((at for at, _ in found if at), default=None),
            entities=len(rows),
            behind=behind,
            missing=missing,
            null_online=_null_shares(there, features) if there else None,
            lag_s=lag_s,
        )

    def _sample(self, store: Any, view: FeatureView, start: datetime, end: datetime, entities: int) -> list[dict[str, Any]]:
        """The newest row of each of some entities: half those with the newest rows, half drawn from all."""
        stamp = _origin(view).timestamp_field
        with _source(view):
            job = self._latest(store, view, start, end)
            table = getattr(job, "table", None)
            if table is None:  # an offline store that cannot be asked for less
                newest = drawn = job.to_arrow()
                newest, drawn = newest.sort_by([(stamp, "descending")]).slice(0, entities), drawn.slice(0, 0)
            else:
                import ibis

                newest = table.order_by(ibis.desc(stamp)).limit((entities + 1) // 2).to_pyarrow()
                drawn = table.order_by(ibis.random()).limit(entities // 2).to_pyarrow()
            names = [_renamed(view, name) for name in newest.column_names]
            rows = [row for part in (newest, drawn) for row in part.rename_columns(names).to_pylist()]
        return list({tuple(row[k] for k in view.join_keys): row for row in rows}.values())

    def _online(
        self, store: Any, view: FeatureView, keys: list[str], features: list[str], rows: Sequence[Mapping[str, Any]]
    ) -> list[tuple[datetime | None, dict[str, Any]]]:
        """For each row's entity: when its oldest feature is from (None: not found), and its values."""
        try:
            answer = store.get_online_features(
                features=[f"{view.name}:{f}" for f in features], entity_rows={k: [row[k] for row in rows] for k in keys}
            )
        except Exception as error:
            self._forget_transaction(store)
            raise StoreProblem(online_problem(error, view=view.name, join_keys=tuple(keys))) from error
        values = answer.to_dict()
        columns = dict(zip(answer.proto.metadata.feature_names.val, answer.proto.results, strict=True))
        found: list[tuple[datetime | None, dict[str, Any]]] = []
        for i in range(len(rows)):
            stamps = [columns[f].event_timestamps[i] for f in features]
            seconds = [t.seconds + t.nanos / 1e9 for t in stamps if t.seconds]  # 0: not found
            at = datetime.fromtimestamp(min(seconds), UTC) if seconds else None
            found.append((at, {f: values[f][i] for f in features}))
        return found

    # --- writing ------------------------------------------------------------------------------------------------------------

    def _load(self, store: Any, view: FeatureView, since: datetime | None, until: datetime, progress: Progress) -> None:
        """Feast's materialisation of one view; rows first, then how far it came, so that a killed one is repeated."""
        now = self._now()
        honest = [end for _, end in _honest(view, now)]
        poisoned = len(honest) < len(view.materialization_intervals)
        start = max(honest) if honest else now - (view.ttl or YEAR)
        if since is not None:
            start = min(since, start)
        stamp = _renamed(view, _origin(view).timestamp_field)
        with _source(view):
            table = self._latest(store, view, start, until).to_arrow()
            table = table.rename_columns([_renamed(view, name) for name in table.column_names])
        total = table.num_rows
        if total == 0 and (since is not None or not honest):
            raise StoreProblem(no_rows(view.name, f"between {start:%Y-%m-%d %H:%M} and {until:%Y-%m-%d %H:%M} UTC"))
        progress(view.name, 0, total)
        for done in range(0, total, CHUNK):
            part = table.slice(done, CHUNK)
            self._write(store, view, part.combine_chunks().to_batches()[0], fresh=not view.materialization_intervals)
            progress(view.name, done + part.num_rows, total)
        if total:
            import pyarrow.compute as pc

            # Not `until`: rows dated between the newest that was there and now may still be on their way, and would never be loaded.
            newest = utc(pc.max(table[stamp]).as_py()) + timedelta(microseconds=1)
            _record(store, view, start, min(newest, now), now)
        elif poisoned:
            _record(store, view, start, until, now)

    def _write(self, store: Any, view: FeatureView, batch: pa.RecordBatch, *, fresh: bool) -> None:
        from feast.utils import _convert_arrow_to_proto
        from psycopg.errors import DeadlockDetected

        provider = store._get_provider()
        types = {column.name: column.dtype.to_value_type() for column in view.entity_columns}
        rows = _convert_arrow_to_proto(batch, view, types)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                kept = rows
                if not fresh:
                    # Named: without names the PostgreSQL store of Feast 0.67 fails ("1 placeholders but 2 parameters").
                    online = provider.online_read(store.config, view, [row[0] for row in rows], [f.name for f in view.features])
                    kept = [row for row, old in zip(rows, online, strict=True) if _replaces(row, *old)]
                if kept:
                    provider.online_write_batch(store.config, view, kept, None)
                return
            except Exception as error:
                self._forget_transaction(store)
                # A schedule that writes the same rows in another order: one of the two has to begin again.
                if attempt == ATTEMPTS or not isinstance(error, DeadlockDetected):
                    raise StoreProblem(online_problem(error, view=view.name)) from error

    # --- both ---------------------------------------------------------------------------------------------------------------

    def _latest(self, store: Any, view: FeatureView, start: datetime, end: datetime) -> Any:
        """Feast's own query for the newest row of each entity in a window; a job that runs when it is asked for rows."""
        from feast.utils import _get_column_names

        entities = [store.get_entity(name) for name in view.entities]
        keys, features, stamp, created = _get_column_names(view, entities)
        return store._get_provider().offline_store.pull_latest_from_table_or_query(
            config=store.config,
            data_source=view.batch_source,
            join_key_columns=keys,
            feature_name_columns=features,
            timestamp_field=stamp,
            created_timestamp_column=created,
            start_date=start,
            end_date=end,
        )

    def _view(self, store: Any, name: str) -> FeatureView:
        from feast.errors import FeatureViewNotFoundException

        with _registry():
            try:
                view: FeatureView = store.get_feature_view(name)
                return view
            except FeatureViewNotFoundException as error:
                raise StoreProblem(view_missing(name)) from error

    def _opened(self, limit_ms: int) -> Any:
        """The store, with our time limits on its connection."""
        load_feast()
        with _registry():
            if self._store is None:
                self._store = open_store(self._repo)
                warnings.filterwarnings("ignore", category=DeprecationWarning, module="ibis")  # Feast shows them, and each query gives one
        try:
            limit_waits(self._store, lock_ms=round(self._lock_limit_s * 1000), statement_ms=limit_ms)
        except Exception as error:
            raise StoreProblem(online_problem(error)) from error
        return self._store

    def _forget_transaction(self, store: Any) -> None:
        """After a failed statement the connection takes no other until it is rolled back."""
        connection = getattr(store._get_provider().online_store, "_conn", None)
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.rollback()

    def _close(self) -> None:
        """Begin anew at the next call: a connection may be broken, or in the middle of a transaction."""
        store, self._store = self._store, None
        if store is None:
            return
        for pool in (getattr(store.registry, name, None) for name in ("read_engine", "write_engine")):
            if pool is not None:
                pool.dispose()
        with contextlib.suppress(Exception):
            close_connection(store)


def _record(store: Any, view: FeatureView, start: datetime, end: datetime, now: datetime) -> None:
    """Tell the registry how far the materialisation came. Ends in the future, which make every later run do nothing, go."""
    with _registry():
        store.registry.apply_materialization(view, store.project, start, end)
        written = store.registry.get_feature_view(view.name, store.project)
        honest = _honest(written, now)
        if len(honest) < len(written.materialization_intervals):
            written.materialization_intervals = honest
            store.registry.apply_feature_view(written, store.project)


def _honest(view: FeatureView, now: datetime) -> list[tuple[datetime, datetime]]:
    """The intervals that were loaded: not those that end in the future, nor the runs after one, which begin behind their end."""
    return [(start, end) for start, end in view.materialization_intervals if start <= end <= now + CLOCK_SKEW]


def _updated_at(store: Any, view: FeatureView) -> datetime | None:
    """When the definition last changed, after it was first applied. Not `last_updated_timestamp`: every materialisation moves it."""
    try:
        versions = store.list_feature_view_versions(view.name)
    except NotImplementedError:  # a registry that keeps none
        versions = []
    changed: datetime | None = versions[-1]["created_timestamp"] if len(versions) > 1 else None
    return changed


def _replaces(row: tuple[Any, Mapping[str, Any], datetime, Any], at: datetime | None, online: Mapping[str, Any] | None) -> bool:
    """A row goes online unless it is there, or a newer one; one with an empty value gives way to one that has it."""
    _, values, stamp, _ = row
    if at is None or online is None or utc(at) < utc(stamp):
        return True
    if utc(at) == utc(stamp):
        return any(online.get(name) != value for name, value in values.items())
    return any(_empty(online.get(name)) and not _empty(value) for name, value in values.items())


def _empty(value: Any) -> bool:
    """A Feast value that is null, or a NaN that somebody wrote."""
    kind = value.WhichOneof("val") if value is not None else None
    if kind in (None, "null_val"):
        return True
    return kind in ("double_val", "float_val") and math.isnan(getattr(value, kind))


def _null_shares(rows: Sequence[Mapping[str, Any]], features: Sequence[str]) -> dict[str, float]:
    return {f: sum(row[f] is None or row[f] != row[f] for row in rows) / len(rows) for f in features}


def _origin(view: FeatureView) -> Any:
    """Where the view's rows come from: Feast calls it its batch source, and every view that we list has one."""
    return view.batch_source


def _asked_by(view: FeatureView, aliases: Mapping[str, str]) -> list[str]:
    """The keys by which callers ask for it; Feast fills in the one of a view without entities."""
    from feast.feature_view import DUMMY_ENTITY_ID

    return [aliases.get(key, key) for key in view.join_keys if key != DUMMY_ENTITY_ID]


def _renamed(view: FeatureView, column: str) -> str:
    """A source's column by the name the view gives it."""
    name: str = _origin(view).field_mapping.get(column, column)
    return name


@contextlib.contextmanager
def _registry() -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (RunbookError, SQLAlchemyError, OSError) as error:
        raise StoreProblem(registry_problem(error)) from error


@contextlib.contextmanager
def _source(view: FeatureView) -> Iterator[None]:
    try:
        yield
    except StoreProblem:
        raise
    except Exception as error:  # DuckDB, ibis, Arrow, the file system, or whatever another offline store is made of
        path = str(getattr(_origin(view), "path", None) or _origin(view).name)
        raise StoreProblem(source_problem(error, view.name, path, list(view.join_keys))) from error
