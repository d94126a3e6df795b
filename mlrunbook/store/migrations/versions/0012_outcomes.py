"""Outcomes have versions: who reported or corrected each, when, and what it was before. Rows are only ever added."""

import sqlalchemy as sa
from alembic import op

revision = "0012_outcomes"
down_revision = "0011_tokens"


def upgrade() -> None:
    op.add_column("predictions", sa.Column("first_outcome_at", sa.DateTime(timezone=True)), schema="platform")
    op.create_table(
        "outcomes",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("prediction_id", sa.BigInteger, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("predicted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.Boolean, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("token_id", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("previous", sa.Boolean),
        sa.Column("previous_at", sa.DateTime(timezone=True)),
        sa.Column("rewrites", sa.Boolean, nullable=False),
        schema="platform",
    )
    op.create_index("outcomes_of_prediction", "outcomes", ["prediction_id", "id"], schema="platform")
    corrections = sa.text("previous IS NOT NULL")
    op.create_index("outcomes_corrected", "outcomes", ["model", "predicted_at"], schema="platform", postgresql_where=corrections)
    op.create_index("outcomes_corrected_at", "outcomes", ["model", "at"], schema="platform", postgresql_where=corrections)
    op.execute("""
        CREATE FUNCTION platform.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'versions of outcomes are never changed or removed'; END $$
    """)
    op.execute("""
        CREATE TRIGGER outcomes_are_kept BEFORE UPDATE OR DELETE ON platform.outcomes
        FOR EACH ROW EXECUTE FUNCTION platform.refuse_change()
    """)
