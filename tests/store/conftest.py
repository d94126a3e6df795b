"""An empty store, and incidents to write about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
from sqlalchemy import Connection, Engine

from mlrunbook.domain.detection.reports import Report
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.store import incidents
from tests.fakes import MODEL, T0, empty_store


@pytest.fixture
def store(engine: Engine) -> Engine:
    empty_store(engine)
    return engine


@pytest.fixture
def conn(store: Engine) -> Iterator[Connection]:
    """One transaction, committed at the end."""
    with store.begin() as conn:
        yield conn


def report(model: str = MODEL, family: str = "performance") -> Report:
    return Report(model, IncidentType.PERFORMANCE_DEGRADATION, family, Severity.MEDIUM, "F1 fell 40 %", "alertmanager")


@pytest.fixture
def incident_id(store: Engine) -> str:
    with store.begin() as conn:
        return incidents.open_or_join(conn, report(), now=T0)[0].id


Now = Callable[[], datetime]
