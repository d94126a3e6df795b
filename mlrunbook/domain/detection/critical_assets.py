"""Critical assets: what counts as one, and a failure of one that the model called safe.

Runbook, "Severity Levels": "critical failure missed" is critical. One such failure is enough: no average hides it, and nobody waits
for a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mlrunbook.domain.evaluation.outcomes import span
from mlrunbook.domain.policy.alerting import SafetyPolicy


@dataclass(frozen=True)
class MissedFailure:
    """A critical asset that failed after a low score, inside the horizon of that prediction. Times are aware UTC."""

    prediction_id: int
    asset_id: str
    asset_type: str
    score: float
    threshold: float
    predicted_at: datetime
    failed_at: datetime

    @property
    def sentence(self) -> str:
        after = span((self.failed_at - self.predicted_at).total_seconds())
        return (
            f"{self.asset_id} (type {self.asset_type}) failed {after} after prediction {self.prediction_id} "
            f"scored it {self.score:.2f}, under the threshold {self.threshold:g}"
        )


def is_critical(asset_id: str, asset_type: str, policy: SafetyPolicy) -> bool:
    return asset_id in policy.critical_assets or asset_type in policy.critical_asset_types


def is_missed(
    asset_id: str, asset_type: str, *, flagged: bool, failed: bool, predicted_at: datetime, failed_at: datetime, policy: SafetyPolicy
) -> bool:
    """Whether this outcome is a critical failure that the model missed. A failure exactly at the horizon still counts."""
    late = failed_at - predicted_at > policy.horizon
    return failed and not flagged and not late and is_critical(asset_id, asset_type, policy)


def missed_words(missed: Sequence[MissedFailure]) -> str:
    """'critical failure missed: press_1 (type H) failed 3 h after ...'; the newest first, the others counted."""
    newest = max(missed, key=lambda m: (m.failed_at, m.prediction_id))
    others = f", and {len(missed) - 1} more" if len(missed) > 1 else ""
    return f"critical failure missed: {newest.sentence}{others}"
