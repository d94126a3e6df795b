"""Scheduled materialisation, scores of the version in staging, and the asset types a version was trained on.

The new columns are nullable without a default: PostgreSQL then rewrites no row, however long the prediction log is.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003_feature_schedules"
down_revision = "0002_platform"


def upgrade() -> None:
    op.add_column("predictions", sa.Column("shadow_version", sa.Text(), nullable=True), schema="platform")
    op.add_column("predictions", sa.Column("shadow_score", sa.Double(), nullable=True), schema="platform")
    op.add_column("versions", sa.Column("asset_types", postgresql.JSONB(), nullable=True), schema="platform")
    op.create_table(
        "feature_schedules",
        sa.Column("view", sa.Text(), nullable=False),
        sa.Column("suspended", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("last_run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("materialized_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("changed_by", sa.Text(), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("view", name=op.f("pk_feature_schedules")),
        schema="platform",
    )
