"""Missed failures are found as their outcomes come, without reading the prediction log."""

import sqlalchemy as sa
from alembic import op

revision = "0005_missed_failures"
down_revision = "0004_monitoring"


def upgrade() -> None:
    op.create_index(
        "predictions_missed",
        "predictions",
        ["model", "outcome_at"],
        schema="platform",
        postgresql_where=sa.text("outcome AND NOT label"),
    )
