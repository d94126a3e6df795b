"""Who ended an action item, when, and with which words."""

import sqlalchemy as sa
from alembic import op

revision = "0008_action_items"
down_revision = "0007_intake"


def upgrade() -> None:
    op.add_column("action_items", sa.Column("ended_at", sa.DateTime(timezone=True)))
    op.add_column("action_items", sa.Column("ended_by", sa.Text))
    op.add_column("action_items", sa.Column("note", sa.Text, nullable=False, server_default=""))
