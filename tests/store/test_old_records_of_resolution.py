"""Rows as earlier versions wrote them are read as what they say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection

from mlrunbook.domain.actions import Path
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.communication.messages import Figures
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.evaluation.version_comparison import Check, Decision
from mlrunbook.domain.records import Recorded
from mlrunbook.domain.resolution.candidate import CandidatePlan, RetrainingDecided, Shadow, Trained, Validation
from mlrunbook.domain.resolution.fix import Applied, HumanResolution
from mlrunbook.domain.resolution.observation import ObservationOver, Would, WouldContain, WouldResolve
from mlrunbook.domain.resolution.plan import ResolutionPlan, ReturnPlan, UndoPlan
from mlrunbook.domain.resolution.recovery import OutcomesOverdue, PromotionWatch, Recovery
from mlrunbook.domain.resolution.request import Request
from tests.store.old_records import check_read

AT = datetime(2026, 3, 29, 0, 30, 7, 250000, tzinfo=UTC)
SINCE = datetime(2026, 3, 1, tzinfo=UTC)
DIGEST = "5b1f0c3e9d2a" * 5
BEFORE, AFTER = {"tp": 50, "fp": 30, "fn": 52, "tn": 868}, {"tp": 82, "fp": 18, "fn": 18, "tn": 882}
ASKED = {"reason": "too many alarms", "by": "an engineer"}
FEW = "too few failures are known to train on some and hold out others: wait for outcomes"

STOPPED = {"kind": "scale", "summary": "stop it", "target": {"replicas": 0}}

# The kind, the row as 0.1.0 or a later version before this one wrote it, and what must be read.
SAMPLES: list[tuple[type[Recorded], dict[str, Any], Recorded]] = [
    (
        WouldContain,
        {"at": AT.isoformat(), "at_once": [STOPPED], "asked": [], "reasons": ["it harms"]},
        WouldContain(AT, (Would("scale", "stop it", {"replicas": 0}),), (), ("it harms",)),
    ),
    (
        WouldResolve,
        {"at": AT.isoformat(), "headline": "nothing found", "changes": [], "path": None, "why": "look"},
        WouldResolve(AT, "nothing found", why="look"),
    ),
    (ObservationOver, {"at": AT.isoformat(), "why": "its alerts have ended", "by": ""}, ObservationOver(AT, "its alerts have ended")),
    (
        Request,
        {"path": "rollback", "target_version": "v1.5.0", **ASKED},
        Request(path=Path.ROLLBACK, target_version="v1.5.0", reason="too many alarms", by="an engineer"),
    ),
    (
        Request,
        {"path": "threshold", "threshold": None, **ASKED},
        Request(path=Path.THRESHOLD, reason="too many alarms", by="an engineer"),
    ),
    (
        Request,
        {"path": "threshold", "threshold": 0.45, **ASKED},
        Request(path=Path.THRESHOLD, threshold=0.45, reason="too many alarms", by="an engineer"),
    ),
    (
        Request,
        {"path": "materialize", "views": ["asset_sensors"], "since": SINCE.isoformat(), "until": None, **ASKED},
        Request(path=Path.MATERIALIZE, views=("asset_sensors",), since=SINCE, reason="too many alarms", by="an engineer"),
    ),
    (
        Request,
        {"path": "retrain", "start_date": SINCE.isoformat(), "end_date": AT.isoformat(), "version": "v2.1.0", **ASKED},
        Request(path=Path.RETRAIN, start_date=SINCE, end_date=AT, version="v2.1.0", reason="too many alarms", by="an engineer"),
    ),
    (
        Request,
        {"path": "retrain", "start_date": SINCE.isoformat(), "end_date": AT.isoformat(), **ASKED},
        Request(path=Path.RETRAIN, start_date=SINCE, end_date=AT, reason="too many alarms", by="an engineer"),
    ),
    (
        RetrainingDecided,
        {"version": "v2.1.0", "start": str(SINCE), "end": str(AT), "cause": "concept_drift", "sentence": "train on the rows"},
        RetrainingDecided("v2.1.0", "train on the rows", SINCE, AT, Cause.CONCEPT_DRIFT),
    ),
    (
        RetrainingDecided,
        {"version": None, "start": None, "end": None, "cause": None, "sentence": FEW},
        RetrainingDecided(None, FEW),
    ),
    (Trained, {"at": str(AT), "version": "v2.1.0"}, Trained(AT, "v2.1.0")),
    (CandidatePlan, {"digest": DIGEST}, CandidatePlan(DIGEST)),
    (
        Validation,
        {
            "verdict": "promote",
            "sentence": "v2.1.0 F1 0.81",
            "checks": [
                {"name": "f1", "passed": True, "sentence": "better", "value": 0.34},
                {"name": "latency", "passed": None, "sentence": "one row's latency was not measured", "value": None},
            ],
            "rows": 1000,
            "positives": 102,
            "champion": BEFORE,
            "candidate": AFTER,
            "version": "v2.1.0",
            "threshold": 0.5,
            "compared_with": "v2.0.0",
        },
        Validation(
            Decision.PROMOTE,
            "v2.1.0 F1 0.81",
            "v2.1.0",
            (Check("f1", True, "better", 0.34), Check("latency", None, "one row's latency was not measured")),
            1000,
            102,
            Confusion(**BEFORE),
            Confusion(**AFTER),
            0.5,
            "v2.0.0",
        ),
    ),
    (
        Shadow,
        {
            "passed": None,
            "sentence": "too early to say",
            "rows": 20,
            "positives": 1,
            "champion": BEFORE,
            "candidate": AFTER,
            "version": "v2.1.0",
        },
        Shadow(None, "too early to say", "v2.1.0", 20, 1, Confusion(**BEFORE), Confusion(**AFTER)),
    ),
    (ResolutionPlan, {"digest": DIGEST, "path": "undo_rollout", "why": None}, ResolutionPlan(DIGEST, Path.UNDO_ROLLOUT)),
    (ResolutionPlan, {"digest": None, "path": None, "why": "look at its log"}, ResolutionPlan(None, why="look at its log")),
    (Applied, {"at": str(AT), "path": "rollback"}, Applied(AT, Path.ROLLBACK)),
    (
        HumanResolution,
        {"by": "the lead", "what": "replaced the gateway", "root_cause": None, "at": AT.isoformat()},
        HumanResolution("the lead", "replaced the gateway", AT),
    ),
    (OutcomesOverdue, {"sentence": "too early to say"}, OutcomesOverdue("too early to say")),
    (
        Recovery,
        {
            "recovered": True,
            "sentence": "recovered: F1 0.81",
            "f1": 0.81,
            "f1_baseline": 0.82,
            "labelled": 400,
            "figures": {
                "f1_baseline": 0.82,
                "f1_now": 0.81,
                "unnecessary_share": 0.2,
                "cost_per_day": None,
                "currency": "USD",
                "predictions": 500,
                "labelled": 400,
                "label_delay_s": 60.0,
            },
            "waits_for_outcomes": False,
            "label_delay_s": 60.0,
        },
        Recovery(True, "recovered: F1 0.81", 0.81, 0.82, 400, Figures(0.82, 0.81, 0.2, None, "USD", 500, 400, 60.0), label_delay_s=60.0),
    ),
    (
        Recovery,
        {
            "recovered": True,
            "sentence": "resolved on the word of the lead",
            "f1": None,
            "f1_baseline": None,
            "labelled": 0,
            "figures": None,
            "waits_for_outcomes": False,
            "label_delay_s": None,
        },
        Recovery(True, "resolved on the word of the lead"),
    ),
    (PromotionWatch, {"at": str(AT), "sentence": "v2.1.0: no fall"}, PromotionWatch(AT, "v2.1.0: no fall")),
    (ReturnPlan, {"digest": DIGEST, "promoted": "v2.1.0"}, ReturnPlan(DIGEST, "v2.1.0")),
    (
        UndoPlan,
        {"digest": DIGEST, "undoes": ["a1", None], "kept": {"a2": "the override is gone already"}},
        UndoPlan(DIGEST, ("a1", None), {"a2": "the override is gone already"}),
    ),
    (UndoPlan, {"digest": None, "undoes": [], "kept": {}}, UndoPlan(None, (), {})),
]


@pytest.mark.parametrize(("kind", "row", "meant"), SAMPLES, ids=lambda one: one.__name__ if isinstance(one, type) else "")
def test_a_row_of_an_earlier_version_is_read_as_what_it_says(
    conn: Connection, incident_id: str, kind: type[Recorded], row: dict[str, Any], meant: Recorded
) -> None:
    check_read(conn, incident_id, kind, row, meant)


@pytest.mark.parametrize(("kind", "row", "meant"), SAMPLES, ids=lambda one: one.__name__ if isinstance(one, type) else "")
def test_what_is_written_is_to_the_letter_what_earlier_versions_wrote(kind: type[Recorded], row: dict[str, Any], meant: Recorded) -> None:
    """An earlier version can go on with it, and the keys that are built from it stay the same. It ignores the fields that are new."""
    written = meant.to_record()
    assert {name: written.get(name) for name in row} == row
    assert written.keys() - row.keys() <= {"counted"}


def test_a_validation_with_nothing_to_train_is_no_yes() -> None:
    row = {"verdict": "not_enough_evidence", "version": None, "start": None, "end": None, "cause": "new_segment", "sentence": FEW}
    assert Validation.from_record(row) == Validation(Decision.NOT_ENOUGH_EVIDENCE, FEW, None)


@pytest.mark.parametrize("at", [AT, SINCE])
def test_the_moment_of_a_fix_is_kept_as_its_row_has_it(at: datetime) -> None:
    """The key of a decision about an isolated server is built from it."""
    assert Applied.from_record({"at": str(at), "path": "rollback"}).stored_at == str(at)
    said = {"by": "the lead", "what": "replaced the gateway", "at": at.isoformat()}
    assert HumanResolution.from_record(said).stored_at == at.isoformat()
