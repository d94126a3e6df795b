"""Deliveries are known again by the sender's id, changes told by other systems are kept, quarantined messages can be replayed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007_intake"
down_revision = "0006_audits"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "deliveries",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("receipt", JSONB, nullable=False),
        sa.Column("received_at", TIME, nullable=False),
    )
    op.create_index("deliveries_by_age", "deliveries", ["received_at"])
    op.create_table(
        "changes",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("ref", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("detail", JSONB, nullable=False, server_default="{}"),
        sa.Column("received_at", TIME, nullable=False),
        sa.UniqueConstraint("model", "kind", "ref", "at", name="one_row_per_change"),
    )
    op.create_index("changes_of_model", "changes", ["model", "at"])
    op.add_column("quarantine", sa.Column("headers", JSONB, nullable=False, server_default="{}"))
    op.add_column("quarantine", sa.Column("sender", sa.Text, nullable=False, server_default=""))
    op.add_column("quarantine", sa.Column("replayed_at", TIME))
    op.add_column("quarantine", sa.Column("replayed_into", JSONB))
