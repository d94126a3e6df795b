"""The limits of the audits that no other part of the policy has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, StringConstraints

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, StringConstraints(min_length=1)]


@dataclass(frozen=True)
class AuditPolicy:
    """Runbook, "Regular Audits". When they are held is in `prefect.yaml`; what they share with alerts (drops, nulls, latency, fairness,
    drift) has its limits there.

    `history_days`: what the charts of a weekly review show. `accuracy_drop`: of a risk level, in points of accuracy. A group
    flagged so much more, or less, often than it fails, by `flagged_factor`, is out of proportion. An alert that fires for longer than
    `alert_open_max_h` is overdue. `documents` are paths below MLRUNBOOK_HOME that must be there; `model_card` is one more,
    which must have `model_card_headings` (Mitchell et al. 2019, "Model Cards for Model Reporting"). Tokens are replaced after
    `token_max_age_days` and withdrawn when unused for `token_unused_days`. A drill is held every `drill_every_days`. Of the incidents of a
    year `in_time` must have been answered, and of the action items done, in time; a cause that returns within `recurrence_days` was not
    mended. Fewer than `min_incidents` give no trend.
    """

    history_days: Count = 28
    accuracy_drop: Share = 0.05
    flagged_factor: Annotated[float, Field(gt=1)] = 2.0
    alert_open_max_h: Count = 24
    documents: tuple[Text, ...] = ("docs/runbooks/ml-model-incident.md", "docs/runbooks/coverage.md", "runbook.yaml")
    model_card: Text = "docs/models/{model}.md"
    model_card_headings: tuple[Text, ...] = (
        "Model Details", "Intended Use", "Factors", "Metrics", "Evaluation Data", "Training Data", "Ethical Considerations",
        "Caveats and Recommendations",
    )  # fmt: skip
    token_max_age_days: Count = 365
    token_unused_days: Count = 90
    drill_every_days: Count = 92
    in_time: Share = 0.9
    recurrence_days: Count = 90
    min_incidents: Count = 5
