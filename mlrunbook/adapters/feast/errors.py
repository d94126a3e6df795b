"""What Feast, DuckDB, Arrow and the databases raise, told apart once: each a problem with its own sentence.

Feast translates nothing, and the same trouble comes out in another class from every store below it.
"""

from __future__ import annotations

import re

from mlrunbook.adapters.feast.api import first_line
from mlrunbook.domain.errors import NotFound, Refused, RunbookError, Transient
from mlrunbook.domain.investigation.feature_store import PASSING
from mlrunbook.domain.observed import FeatureFault, FeatureProblem

_MISSING_FILE = re.compile(r"no files found|no such file|does not exist|cannot open file", re.I)
_NOT_SERVED = re.compile(r"Feature view '(?P<view>[^']+)' is (?:in state '(?P<state>\w+)'|disabled)")
_MISSING_COLUMN = re.compile(r"column|field|attribute", re.I)


def registry_problem(error: Exception) -> FeatureProblem:
    """The repository cannot be opened, or its registry not be read."""
    if isinstance(error, NotFound) or re.search(r'database ".*" does not exist', str(error)):
        return FeatureProblem(FeatureFault.REGISTRY_MISSING, f"the registry of the feature store is missing: {first_line(error)}")
    if isinstance(error, Refused):
        return FeatureProblem(FeatureFault.REGISTRY_MISSING, f"the feature repository cannot be used: {first_line(error)}")
    told = first_line(error)
    if not isinstance(error, RunbookError):
        told = f"the registry of the feature store does not answer: {told}; is its database up?"
    return FeatureProblem(FeatureFault.ONLINE_UNREACHABLE, told)


def source_problem(error: Exception, view: str, path: str, join_keys: list[str]) -> FeatureProblem:
    """The offline source of a view cannot be read."""
    reason = first_line(error)
    lacking = next(
        (k for k in join_keys if re.search(rf"['\"`]{re.escape(k)}['\"`]", str(error)) and _MISSING_COLUMN.search(str(error))), None
    )
    if lacking:
        sentence = f"the source of {view} has no column {lacking}, the entity key of the view: one of the two was renamed; make them agree"
        return FeatureProblem(FeatureFault.WRONG_ENTITY_KEY, sentence, view)
    if isinstance(error, FileNotFoundError) or _MISSING_FILE.search(str(error)):
        sentence = f"the source of {view} is missing: nothing at {path}; restore the files, or look at the pipeline that writes them"
        return FeatureProblem(FeatureFault.SOURCE_MISSING, sentence, view)
    sentence = f"the source of {view} cannot be read ({reason}); replace the broken file at {path}, then materialize"
    return FeatureProblem(FeatureFault.SOURCE_CORRUPT, sentence, view)


def online_problem(
    error: Exception, *, view: str | None = None, service: str | None = None, join_keys: tuple[str, ...] = ()
) -> FeatureProblem:
    """A read or a write of the online store fails."""
    import psycopg
    from feast.errors import FeatureServiceNotFoundException, FeatureViewNotFoundException
    from sqlalchemy.exc import SQLAlchemyError

    reason, text = first_line(error), str(error).lower()
    if isinstance(error, SQLAlchemyError):
        return registry_problem(error)
    if isinstance(error, FeatureServiceNotFoundException):
        sentence = f"the feature service {service} is not in the registry; apply the definitions again (feast apply)"
        return FeatureProblem(FeatureFault.SERVICE_MISSING, sentence)
    if isinstance(error, FeatureViewNotFoundException):
        return view_missing(view or reason)
    locked = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled, psycopg.errors.DeadlockDetected)
    if isinstance(error, locked) or "database is locked" in text:
        sentence = f"the online store is locked ({reason}); end the transaction that holds its tables"
        return FeatureProblem(FeatureFault.ONLINE_LOCKED, sentence, view)
    if isinstance(error, psycopg.errors.UndefinedTable) or "no such table" in text:
        sentence = f"a table of the online store is gone ({reason}); apply the definitions again (feast apply), then materialize"
        return FeatureProblem(FeatureFault.ONLINE_DROPPED, sentence, view)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | OSError):
        return FeatureProblem(FeatureFault.ONLINE_UNREACHABLE, f"the online store cannot be reached ({reason}); is its database up?", view)
    if unserved := _NOT_SERVED.search(str(error)):
        return _not_served(unserved["view"], unserved["state"])
    if join_keys:
        sentence = f"a read by {', '.join(join_keys)} fails ({type(error).__name__}: {reason}); compare the entity's join key with it"
        return FeatureProblem(FeatureFault.WRONG_ENTITY_KEY, sentence, view)
    return FeatureProblem(FeatureFault.ONLINE_UNREACHABLE, f"the online store cannot be used ({type(error).__name__}: {reason})", view)


def _not_served(view: str, state: str | None) -> FeatureProblem:
    """Feast has the rows, and serves them only in state AVAILABLE_ONLINE. `state` None: somebody has disabled the view."""
    if state == "MATERIALIZING":
        sentence = (
            f"{view} is being materialized, and Feast refuses every read of it meanwhile. Wait for the job to end, or have features served "
            "meanwhile (`serve_features_while_materializing: true` under `registry` in feature_store.yaml). Where no job runs, the last "
            "one died: `feast materialize-incremental` ends that state"
        )
        return FeatureProblem(FeatureFault.MATERIALIZING, sentence, view)
    if state is None:
        sentence = f"{view} is disabled, and Feast refuses every read of it: `feast feature-views enable {view}`"
    else:
        sentence = f"{view} is in state {state}, and Feast refuses every read of it until it is materialized: `feast materialize`"
    return FeatureProblem(FeatureFault.NOT_SERVED, sentence, view)


def view_missing(view: str) -> FeatureProblem:
    sentence = f"the feature view {view} is not in the registry; apply the definitions again (feast apply), then materialize"
    return FeatureProblem(FeatureFault.VIEW_MISSING, sentence, view)


def no_rows(view: str, window: str) -> FeatureProblem:
    sentence = f"the source of {view} has no row {window}: there is nothing to materialize; look at the pipeline that writes it"
    return FeatureProblem(FeatureFault.NO_ROWS_IN_WINDOW, sentence, view)


class StoreProblem(Exception):
    """Carries a problem from where it was told apart to where it is reported or raised."""

    def __init__(self, problem: FeatureProblem) -> None:
        super().__init__(problem.sentence)
        self.problem = problem


def as_error(problem: FeatureProblem) -> RunbookError:
    """The problem as an error of ours: what passes by itself may be tried again, the rest needs a person."""
    if problem.fault in PASSING:
        return Transient(problem.sentence)
    if problem.fault in (FeatureFault.VIEW_MISSING, FeatureFault.REGISTRY_MISSING, FeatureFault.SERVICE_MISSING):
        return NotFound(problem.sentence)
    return Refused(problem.sentence)
