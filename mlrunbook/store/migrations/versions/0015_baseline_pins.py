"""The period that each model was last proven healthy in."""

import sqlalchemy as sa
from alembic import op

revision = "0015_baseline_pins"
down_revision = "0014_row_events"


def upgrade() -> None:
    op.create_table(
        "baseline_pins",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("pinned_at", sa.DateTime(timezone=True), nullable=False),
    )
