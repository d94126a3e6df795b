"""Counts in rows: those of a binary model are as every version has written them, those of another task name it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Connection

from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.errors import Unreadable
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.tally import TASKS
from mlrunbook.store import records
from tests.domain.other_tasks import AbsoluteErrors
from tests.store.test_old_records_of_detection import AT, HEALTHY, TRIAGE, TRIAGE_ROW


def test_the_counts_of_a_binary_model_are_written_as_an_earlier_version_reads_them() -> None:
    assert TRIAGE.to_record()["baseline"] == HEALTHY
    assert Triage.from_record(TRIAGE_ROW | {"baseline": HEALTHY | {"task": "binary"}}).baseline == Confusion(**HEALTHY)


def test_the_sums_of_another_task_come_back_as_they_were(conn: Connection, incident_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "regression", AbsoluteErrors)
    found = replace(TRIAGE, baseline=AbsoluteErrors(500, 2117.5), baseline_by_type={"pump": AbsoluteErrors(20, 90.0)})
    records.keep(conn, incident_id, found, now=AT)
    assert records.recall(conn, incident_id, Triage) == found


@pytest.mark.parametrize("baseline", [{"task": "ranking", "n": 4}, 7, {"tp": "many"}])
def test_a_tally_that_this_version_does_not_know_is_unreadable_and_says_so(baseline: object) -> None:
    with pytest.raises(Unreadable, match="baseline"):
        Triage.from_record(TRIAGE_ROW | {"baseline": baseline})
