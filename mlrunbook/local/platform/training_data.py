"""What a retraining learns from: predictions whose outcome is known, each with the features as the feature store knew them then.

Never the features that were logged when they were served: a fault in serving (stale rows, nulls) must not become what the model learns.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, select

from mlrunbook.base.db import transaction
from mlrunbook.domain.errors import Invalid, NotFound, Refused, Transient
from mlrunbook.local.platform.columns import ASSET_TYPE, NUMERIC, RAW
from mlrunbook.local.platform.tables import predictions

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 25_000  # rows joined at once


def labelled(engine: Engine, model: str, start: datetime, end: datetime) -> pd.DataFrame:
    """`asset_id`, `event_timestamp` (UTC) and `failed` of every prediction in [start, end) whose outcome is known, oldest first."""
    import pandas as pd

    p = predictions.c
    query = (
        select(p.asset_id, p.at.label("event_timestamp"), p.outcome.label("failed"))
        .where(p.model == model, p.at >= start, p.at < end, p.outcome.is_not(None))
        .order_by(p.at, p.id)
    )
    with transaction(engine) as conn:
        rows = conn.execute(query).all()
    frame = pd.DataFrame(rows, columns=["asset_id", "event_timestamp", "failed"])
    # Microseconds: DuckDB reads no nanoseconds.
    frame["event_timestamp"] = pd.to_datetime(frame["event_timestamp"], utc=True).astype("datetime64[us, UTC]")
    return frame.astype({"failed": bool})


def as_known_then(repo: Path, service: str, rows: pd.DataFrame, progress: Callable[[int, int], None] = lambda *_: None) -> pd.DataFrame:
    """`rows` with the RAW columns of the feature service, joined point-in-time: the newest reading of the asset that had been made *and*
    stored by the moment of the prediction, and no older than its view's lifetime. Same order; rows without any reading are left out.

    `progress(done, total)` counts rows. Feast joins a row with every reading of its asset before it picks one: in chunks, so that memory
    does not grow with the square of the window (100,000 rows of 1,000 assets: 1.2 GB in one go).
    """
    import pandas as pd

    from mlrunbook.adapters.feast.api import open_store

    store = open_store(repo)
    entities = rows.assign(row=range(len(rows)))
    parts: list[Any] = []
    with _translated(repo, service), _quiet():
        wanted = store.get_feature_service(service)
        for first in range(0, len(entities), CHUNK):
            chunk = entities.iloc[first : first + CHUNK]
            parts.append(store.get_historical_features(entity_df=chunk, features=wanted, filter_by_created_timestamp=True).to_df())
            progress(first + len(chunk), len(entities))
    frame = pd.concat(parts, ignore_index=True)
    for name in RAW:
        if name not in frame.columns:
            raise Invalid(f"the feature service {service!r} gives no {name!r}; it must hold {', '.join(RAW)}", field=name)
    frame = frame.sort_values("row", kind="stable", ignore_index=True)
    known = frame[list(RAW)].notna().any(axis=1)
    frame = frame.loc[known, ["asset_id", "event_timestamp", *RAW, "failed"]].reset_index(drop=True)
    return frame.astype(dict.fromkeys(NUMERIC, float) | {"failed": bool})


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar of DuckDB's on stdout, which is ours, and no warnings about what Feast calls in other libraries."""
    import ibis

    ibis.get_backend().raw_sql("SET enable_progress_bar = false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@contextmanager
def _translated(repo: Path, service: str) -> Iterator[None]:
    import duckdb
    from feast.errors import FeastError, FeatureServiceNotFoundException
    from sqlalchemy.exc import SQLAlchemyError

    from mlrunbook.adapters.feast.api import first_line

    try:
        yield
    except FeatureServiceNotFoundException as error:
        raise NotFound(f"the feature store at {repo} has no feature service {service!r}; apply its definitions") from error
    except SQLAlchemyError as error:
        raise Transient(f"the registry of the feature store does not answer: {first_line(error)}; is its database up?") from error
    except (duckdb.Error, FeastError, OSError, ValueError, KeyError) as error:
        why = f"the feature store's history cannot be read: {first_line(error)}"
        raise Refused(f"{why}; look at the source files that the views of {service!r} name") from error


def fingerprint(frame: pd.DataFrame) -> str:
    """SHA-256 of the training rows: times, features and outcomes in their order."""
    digest = hashlib.sha256()
    digest.update("\0".join(frame[ASSET_TYPE].fillna("").astype(str)).encode())
    digest.update(frame["event_timestamp"].to_numpy(dtype="datetime64[us]").tobytes())
    for name in NUMERIC:
        digest.update(frame[name].to_numpy(dtype=float).tobytes())
    digest.update(frame["failed"].to_numpy(dtype=bool).tobytes())
    return digest.hexdigest()
