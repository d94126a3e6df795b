"""How long an alert has been quiet, and what the monitor flow's rules remember."""

import sqlalchemy as sa
from alembic import op

revision = "0004_monitoring"
down_revision = "0003_feature_schedules"


def upgrade() -> None:
    op.add_column("alerts", sa.Column("quiet_since", sa.DateTime(timezone=True), nullable=True), schema="platform")
    op.create_table(
        "rule_states",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("bad_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("firing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("quiet_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("evaluated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model", "rule", name=op.f("pk_rule_states")),
    )
