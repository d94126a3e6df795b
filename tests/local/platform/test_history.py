"""The figures by day are exactly what was logged."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert

from mlrunbook.base.db import transaction
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.evaluation.history import DayFigures
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.local.platform import history
from mlrunbook.local.platform.tables import serving_errors
from tests.local.platform.kit import NOW, log, new_model, release


@pytest.fixture
def model(engine: Engine, tmp_path: Path) -> str:
    name = new_model()
    release(engine, tmp_path, name, "v1.5.0")
    return name


def by_day(engine: Engine, model: str, days: int = 7) -> list[DayFigures]:
    with transaction(engine) as conn:
        return history.by_day(conn, model, days=days, until=NOW)


def test_each_day_of_utc_is_counted_for_itself_and_a_quiet_one_is_left_out(engine: Engine, model: str) -> None:
    midnight = NOW.replace(hour=0)
    log(engine, model, tp=3, fp=1, at=midnight)
    log(engine, model, fn=2, tn=4, at=midnight - timedelta(seconds=1))
    log(engine, model, tp=9, at=NOW)  # the end is not part of it
    log(engine, model, tp=9, at=midnight - timedelta(days=7))  # the eighth day back
    log(engine, model, tn=5, unlabelled=5, at=midnight - timedelta(days=6))
    found = by_day(engine, model)
    assert [(d.day, d.predictions, d.confusion) for d in found] == [
        (date(2026, 2, 24), 10, Confusion(tn=5)),
        (date(2026, 3, 1), 6, Confusion(fn=2, tn=4)),
        (date(2026, 3, 2), 4, Confusion(tp=3, fp=1)),
    ]
    assert [d.flagged_share for d in found] == [0.0, 0.0, 1.0]
    assert found[-1].versions == ("v1.5.0",)


def test_a_day_on_which_every_request_failed_is_a_day(engine: Engine, model: str) -> None:
    with transaction(engine) as conn:
        conn.execute(insert(serving_errors).values(model=model, minute=NOW - timedelta(days=1), kind="scoring", count=3))
    (only,) = by_day(engine, model)
    assert (only.predictions, only.error_rate, only.flagged_share) == (0, 1.0, None)


def test_a_model_that_nobody_knows_has_no_history(engine: Engine) -> None:
    with pytest.raises(NotFound):
        by_day(engine, "nobody")
