"""What the aliases of a model registry named and when they moved; what each version was made of when it was first seen."""

import sqlalchemy as sa
from alembic import op

revision = "0019_registry_moves"
down_revision = "0018_console_lists"


def upgrade() -> None:
    op.create_index("changes_by_source", "changes", ["source", "received_at"])
    op.create_table(
        "registry_moves",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("alias", sa.Text, nullable=False),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("seen_by", sa.Text, nullable=False),
        sa.Column("key", sa.Text, unique=True),
        sa.Column("made", sa.Boolean, nullable=False),
        sa.Column("answered", sa.Boolean, nullable=False),
        sa.Column("note", sa.Text, nullable=False, server_default=""),
    )
    op.create_index("registry_moves_of_model", "registry_moves", ["model", "id"])
    op.create_table(
        "registry_versions",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("made_of", sa.Text, nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
    )
