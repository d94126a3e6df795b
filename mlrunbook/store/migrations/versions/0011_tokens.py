"""Tokens expire, are limited to senders and models, and belong to a person; a quarantined message keeps how its sender was proven."""

import unicodedata

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0011_tokens"
down_revision = "0010_clock_jumps"


def _person_of(name: str) -> str:
    """As `mlrunbook.base.tokens.person_of` when this was written."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())


def upgrade() -> None:
    op.add_column("tokens", sa.Column("expires_at", sa.DateTime(timezone=True)))
    op.add_column("tokens", sa.Column("senders", ARRAY(sa.Text), nullable=False, server_default="{}"))
    op.add_column("tokens", sa.Column("models", ARRAY(sa.Text), nullable=False, server_default="{}"))
    op.add_column("tokens", sa.Column("person", sa.Text))
    tokens = sa.table("tokens", sa.column("id"), sa.column("name"), sa.column("person"))
    for row in op.get_bind().execute(sa.select(tokens.c.id, tokens.c.name)).all():
        op.execute(tokens.update().where(tokens.c.id == row.id).values(person=_person_of(row.name)))
    op.alter_column("tokens", "person", nullable=False)
    op.add_column("quarantine", sa.Column("proof", JSONB))
    op.add_column("quarantine", sa.Column("key", sa.Text))
    op.add_column("quarantine", sa.Column("times", sa.Integer, nullable=False, server_default="1"))
    waiting = sa.text("replayed_at IS NULL")
    op.create_index("one_row_per_waiting_message", "quarantine", ["key"], unique=True, postgresql_where=waiting)
