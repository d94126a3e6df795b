from __future__ import annotations

from datetime import timedelta

import pytest

from mlrunbook.domain.detection.critical_assets import MissedFailure, is_missed, missed_words
from mlrunbook.domain.policy.alerting import SafetyPolicy
from tests.domain.builders import NOW

POLICY = SafetyPolicy(critical_asset_types=("H",), critical_assets=("press_1",), horizon_h=24)


def missed(asset_id: str = "press_1", asset_type: str = "L", *, hours: float = 3, flagged: bool = False, failed: bool = True) -> bool:
    failed_at = NOW + timedelta(hours=hours)
    return is_missed(asset_id, asset_type, flagged=flagged, failed=failed, predicted_at=NOW, failed_at=failed_at, policy=POLICY)


def test_a_critical_asset_that_fails_after_a_low_score_within_the_horizon_was_missed() -> None:
    assert missed("press_1", "L")
    assert missed("asset_7", "H"), "critical by its type"
    assert missed(hours=24), "at the horizon"


@pytest.mark.parametrize("case", [{"asset_id": "asset_7"}, {"hours": 24.01}, {"flagged": True}, {"failed": False}])
def test_an_ordinary_asset_a_later_failure_a_warning_and_no_failure_are_none(case: dict[str, object]) -> None:
    assert not missed(**case)  # type: ignore[arg-type]


def test_by_default_no_asset_is_critical() -> None:
    at = {"predicted_at": NOW, "failed_at": NOW}
    assert not is_missed("press_1", "H", flagged=False, failed=True, **at, policy=SafetyPolicy())


def test_the_sentence_names_the_newest_and_counts_the_others() -> None:
    def one(id_: int, hours: float) -> MissedFailure:
        return MissedFailure(id_, f"press_{id_}", "H", 0.04, 0.5, NOW, NOW + timedelta(hours=hours))

    words = "press_2 (type H) failed 5 h after prediction 2 scored it 0.04, under the threshold 0.5"
    assert missed_words([one(2, 5), one(1, 3)]) == f"critical failure missed: {words}, and 1 more"
