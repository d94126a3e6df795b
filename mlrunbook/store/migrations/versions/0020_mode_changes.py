"""Every change of a model's mode, with who has made it and why."""

import sqlalchemy as sa
from alembic import op

revision = "0020_mode_changes"
down_revision = "0019_registry_moves"


def upgrade() -> None:
    op.create_table(
        "mode_changes",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("was", sa.Text),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.Text),
        sa.Column("why", sa.Text),
        sa.Column("explained_at", sa.DateTime(timezone=True)),
    )
    op.create_index("mode_changes_of_model", "mode_changes", ["model", "id"])
