"""The one door to Feast: import it, open a repository, and forget connections that PostgreSQL has closed.

`import feast` takes 4.6 s of CPU, half of it typeguard rewriting Feast's classes to check their arguments at run time. Feast is typed
and its types are checked by its own tests, so the rewriting is left out: 2.2 s.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlrunbook.domain.errors import Invalid, NotFound, Transient

if TYPE_CHECKING:
    from types import ModuleType

    from feast import FeatureStore

CONFIG_FILE = "feature_store.yaml"
_importing = threading.Lock()


def load_feast() -> ModuleType:
    """The package `feast`. The first call takes seconds; any thread may make it."""
    with _importing:
        import typeguard

        checked = typeguard.typechecked
        typeguard.typechecked = _unchanged
        try:
            import feast
        finally:
            typeguard.typechecked = checked
    return feast


def _unchanged(target: Any = None, **_: Any) -> Any:
    """In typeguard's place: decorates by doing nothing, with and without arguments."""
    return target if target is not None else _unchanged


def open_store(repo: Path) -> FeatureStore:
    """The store that `<repo>/feature_store.yaml` describes. Opening a SQL registry connects to it and creates its tables.

    NotFound without the file, Invalid when it cannot be read, Transient when the registry does not answer.
    """
    file = repo / CONFIG_FILE
    if not file.is_file():
        raise NotFound(f"there is no feature store at {repo}: {file} is missing; set MLRUNBOOK_FEATURE_REPO to the folder that holds it")
    feast = load_feast()
    from feast.errors import FeastError
    from feast.repo_config import FeastConfigError
    from pydantic import ValidationError
    from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError
    from yaml import YAMLError

    def opened() -> FeatureStore:
        store: FeatureStore = feast.FeatureStore(repo_path=str(repo))
        store.registry  # noqa: B018  opened lazily: here its errors can be told from those of a read
        return store

    try:
        try:
            return opened()
        except (IntegrityError, ProgrammingError):  # another process makes the registry's tables at this moment: they are there now
            return opened()
    except SQLAlchemyError as error:
        raise Transient(f"the registry of the feature store does not answer: {first_line(error)}; is its database up?") from error
    except (FeastError, FeastConfigError, ValidationError, YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"{file} cannot be used: {first_line(error)}; correct it", field="feature_repo") from error


def forget_dead_connections(store: FeatureStore) -> None:
    """Feast keeps its PostgreSQL connections for ever, also those that a restart of the server has closed: then no read works again."""
    online = store._get_provider().online_store
    for name in ("_conn", "_conn_async"):
        connection = getattr(online, name, None)
        if connection is not None and connection.closed:
            setattr(online, name, None)


def limit_waits(store: FeatureStore, *, lock_ms: int, statement_ms: int) -> Any:
    """Put time limits on the PostgreSQL connection that reads and writes online rows: Feast has no setting for them, and waits for a lock
    for ever. Returns that connection; None for another online store. Opens a new one in place of one that has died."""
    forget_dead_connections(store)
    if store.config.online_store.type != "postgres":
        return None
    online: Any = store._get_provider().online_store
    with online._get_conn(store.config, autocommit=True) as connection:
        connection.execute(f"SET lock_timeout = {lock_ms}; SET statement_timeout = {statement_ms}")
    return connection


def close_connection(store: FeatureStore) -> None:
    """After a write that failed: Feast leaves its transaction open, and then nothing works on that connection. The next use opens another.

    For whoever alone uses `store`.
    """
    online = store._get_provider().online_store
    connection = getattr(online, "_conn", None)
    if connection is not None:
        connection.close()
        online._conn = None  # type: ignore[attr-defined]


def first_line(error: BaseException) -> str:
    """The first line that says something, else the kind of error."""
    told = str(getattr(error, "orig", None) or error).strip()
    return told.splitlines()[0] if told else type(error).__name__
