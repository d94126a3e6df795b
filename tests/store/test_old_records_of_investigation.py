"""Rows as earlier versions wrote them are read as what they say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection

from mlrunbook.domain.actions import Path
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.communication.messages import Figures
from mlrunbook.domain.evaluation.rollback_target import Judged, RollbackTargets, TargetVerdict
from mlrunbook.domain.investigation.causes.definition import Repair
from mlrunbook.domain.investigation.diagnosis import Diagnosed, Lead, ScoredCause
from mlrunbook.domain.investigation.feature_store import FeatureCheck, FeatureVerdict
from mlrunbook.domain.investigation.findings import Finding, Findings, State
from mlrunbook.domain.investigation.inputs.faults import BrokenInputs
from mlrunbook.domain.observed import FeatureFault, FeatureProblem
from mlrunbook.domain.records import Recorded
from mlrunbook.domain.review.review import Approved, Drafted, DriftReport, Reviewed
from tests.store.old_records import check_read

AT = datetime(2026, 3, 29, 0, 30, 7, 250000, tzinfo=UTC)
FINDING_ROW = {
    "key": "data_quality.data_freshness",
    "state": "suspect",
    "source": "prediction log",
    "value": {"age_s": 7200.0},
    "sentence": "the newest prediction is 2 h old",
}
FINDING = Finding("data_quality.data_freshness", State.SUSPECT, "prediction log", {"age_s": 7200.0}, "the newest prediction is 2 h old")
STALE = "asset_wear: the newest online row is 2 h old"
FEATURES_ROW: dict[str, Any] = {
    "verdict": {
        "problems": [{"fault": "stale_data", "sentence": STALE, "view": "asset_wear", "feature": None}],
        "views": ["asset_wear"],
        "since": "2026-03-28T00:30:00+00:00",
        "resume": ["asset_wear"],
        "mendable": True,
        "outage": False,
        "sentence": STALE,
        "judged_at": AT.isoformat(),
    },
    "findings": [FINDING_ROW],
}
FEATURES = FeatureCheck(
    FeatureVerdict(
        (FeatureProblem(FeatureFault.STALE_DATA, STALE, "asset_wear"),),
        ("asset_wear",),
        datetime(2026, 3, 28, 0, 30, tzinfo=UTC),
        ("asset_wear",),
        True,
        False,
        STALE,
        AT,
    ),
    (FINDING,),
)
DIAGNOSIS_ROW: dict[str, Any] = {
    "cause": "stale_features",
    "path": "materialize",
    "sentence": "the model reads stale features: 2 h old. Path B: materialize asset_wear",
    "headline": "the model reads stale features: 2 h old",
    "chain": ["Why did performance fall? Because v2.0.0 missed 52 of 102 failures, and 30 of its 80 alarms were false"],
    "target_version": None,
    "target_threshold": None,
    "target_revision": None,
    "repair": {"views": ["asset_wear"], "since": None, "resume": ["asset_wear"], "until": None, "as_of": AT.isoformat()},
    "causes": [
        {"cause": "stale_features", "score": 1.0, "supports": ["2 h old"], "against": [], "open": []},
        {"cause": "attack", "score": 0.0, "supports": [], "against": ["nobody probes"], "open": ["the log"]},
    ],
    "leads": [{"cause": "stale_features", "explained": "stale features 1.00 (for: 2 h old)"}],
    "figures": {
        "f1_baseline": 0.8,
        "f1_now": 0.55,
        "unnecessary_share": 0.375,
        "cost_per_day": None,
        "currency": "USD",
        "predictions": 1000,
        "labelled": 1000,
        "label_delay_s": None,
    },
}
DIAGNOSIS = Diagnosed(
    Cause.STALE_FEATURES,
    Path.MATERIALIZE,
    DIAGNOSIS_ROW["sentence"],
    DIAGNOSIS_ROW["headline"],
    tuple(DIAGNOSIS_ROW["chain"]),
    repair=Repair(("asset_wear",), None, ("asset_wear",), as_of=AT.isoformat()),
    causes=(
        ScoredCause(Cause.STALE_FEATURES, 1.0, ("2 h old",)),
        ScoredCause(Cause.ATTACK, 0.0, (), ("nobody probes",), ("the log",)),
    ),
    leads=(Lead(Cause.STALE_FEATURES, "stale features 1.00 (for: 2 h old)"),),
    figures=Figures(0.8, 0.55, 0.375, predictions=1000, labelled=1000),
)
ROLLED_BACK_ROW = DIAGNOSIS_ROW | {
    "cause": "bad_deployment",
    "path": "rollback",
    "target_version": "v1.5.0",
    "target_threshold": 0.5,
    "target_revision": 3,
    "repair": None,
}
WON = "v1.5.0 F1 0.81 (0.73-0.87) against v2.0.0 0.47: +0.34 (+0.24 to +0.44), right in 70 of 84 disagreements, p < 0.001"
TARGETS_ROW: dict[str, Any] = {
    "target": "v1.5.0",
    "ranking": [
        {
            "version": "v1.5.0",
            "judged": "accepted",
            "sentence": WON,
            "f1": 0.81,
            "low": 0.73,
            "high": 0.87,
            "gain": 0.34,
            "gain_low": 0.24,
            "gain_high": 0.44,
            "p_value": 0.0002,
        },
        {"version": "v1.4.0", "judged": "refused", "sentence": "v1.4.0 does not qualify: it is damaged"}
        | dict.fromkeys(("f1", "low", "high", "gain", "gain_low", "gain_high", "p_value")),
    ],
    "sentence": "v1.5.0 is the target",
    "not_enough_evidence": False,
    "rows": 4000,
    "positives": 130,
    "threshold": 0.5,
}
TARGETS = RollbackTargets(
    "v1.5.0",
    (
        TargetVerdict("v1.5.0", Judged.ACCEPTED, WON, 0.81, 0.73, 0.87, 0.34, 0.24, 0.44, 0.0002),
        TargetVerdict("v1.4.0", Judged.REFUSED, "v1.4.0 does not qualify: it is damaged"),
    ),
    "v1.5.0 is the target",
    False,
    4000,
    130,
    0.5,
)
NOT_REPLAYED_ROW = {
    "target": None,
    "not_enough_evidence": True,
    "sentence": "the versions could not be compared",
    "rows": 0,
    "positives": 0,
    "threshold": None,
    "ranking": [],
}
TOLD = {"left:a1": "Containment still in force: stop serving pump"}

# The kind, the row as 0.1.0 or a later version before this one wrote it, and what must be read.
SAMPLES: list[tuple[type[Recorded], dict[str, Any], Recorded]] = [
    (Findings, {"findings": [FINDING_ROW]}, Findings((FINDING,))),
    (Findings, {"findings": []}, Findings(())),
    (FeatureCheck, FEATURES_ROW, FEATURES),
    (Diagnosed, DIAGNOSIS_ROW, DIAGNOSIS),
    (
        BrokenInputs,
        {"faults": ["torque is 10 times what it was"], "explains": True, "sentence": "torque is broken"},
        BrokenInputs(("torque is 10 times what it was",), explains=True, sentence="torque is broken"),
    ),
    (RollbackTargets, TARGETS_ROW, TARGETS),
    (RollbackTargets, NOT_REPLAYED_ROW, RollbackTargets(None, (), "the versions could not be compared", True, 0, 0)),
    (Drafted, {"markdown": "# Post-Incident Review: inc-1"}, Drafted("# Post-Incident Review: inc-1")),
    (Drafted, {"markdown": "# Post-Incident Review: inc-1", "told": TOLD}, Drafted("# Post-Incident Review: inc-1", TOLD)),
    (
        Reviewed,
        {"by": "the lead", "role": "ml_team_lead", "at": AT.isoformat()},
        Reviewed("the lead", "ml_team_lead", AT),
    ),
    (
        Approved,
        {"by": "the manager", "role": "engineering_manager", "at": AT.isoformat()},
        Approved("the manager", "engineering_manager", AT),
    ),
    (DriftReport, {"name": "drift-report.html"}, DriftReport("drift-report.html")),
    (DriftReport, {"name": None, "why": "no rows"}, DriftReport(None, "no rows")),
]


@pytest.mark.parametrize(("kind", "row", "meant"), SAMPLES, ids=lambda one: one.__name__ if isinstance(one, type) else "")
def test_a_row_of_an_earlier_version_is_read_as_what_it_says(
    conn: Connection, incident_id: str, kind: type[Recorded], row: dict[str, Any], meant: Recorded
) -> None:
    check_read(conn, incident_id, kind, row, meant)


@pytest.mark.parametrize("row", [DIAGNOSIS_ROW, ROLLED_BACK_ROW])
def test_what_the_gateway_shows_of_a_diagnosis_is_what_it_always_showed(row: dict[str, Any]) -> None:
    assert Diagnosed.from_record(row).to_record() == row


def test_a_finding_that_holds_the_numbers_of_another_library_is_recorded_all_the_same() -> None:
    import numpy as np

    counted = Finding(FINDING.key, State.OK, "prediction log", {"rows": np.int64(3), "share": np.float64(0.5), "at": (1, 2)}, "3 rows")
    assert Findings((counted,)).to_record()["findings"][0]["value"] == {"rows": "3", "share": 0.5, "at": [1, 2]}
