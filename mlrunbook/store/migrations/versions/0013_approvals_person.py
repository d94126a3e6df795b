"""An approval says which person it counts for, so that nobody is two people by two names."""

import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0013_approvals_person"
down_revision = "0012_outcomes"


def person_of(name: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(folded.split())


def upgrade() -> None:
    op.add_column("approvals", sa.Column("person", sa.Text))
    op.execute("UPDATE approvals SET person = door WHERE NOT verified")
    conn = op.get_bind()
    names = conn.execute(sa.text("SELECT DISTINCT approver FROM approvals WHERE verified")).scalars().all()
    for name in names:
        conn.execute(
            sa.text("UPDATE approvals SET person = :person WHERE verified AND approver = :name"), {"person": person_of(name), "name": name}
        )
    op.alter_column("approvals", "person", nullable=False)
