"""A clock that jumps: leases by counter, who has looked at them, what each machine's clock showed, how far times were moved."""

import sqlalchemy as sa
from alembic import op

revision = "0010_clock_jumps"
down_revision = "0009_intake_keys"


def upgrade() -> None:
    op.create_table(
        "clocks",
        sa.Column("boot", sa.Text, primary_key=True),
        sa.Column("offset_s", sa.Double, nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.add_column("leases", sa.Column("renewals", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("leases", sa.Column("silent_after_s", sa.Double))
    op.execute("UPDATE leases SET silent_after_s = 60 WHERE expires_at IS NOT NULL")
    op.create_table(
        "lease_looks",
        sa.Column("boot", sa.Text, primary_key=True),
        sa.Column("incident_id", sa.Text, primary_key=True),
        sa.Column("renewals", sa.BigInteger, nullable=False),
        sa.Column("since_s", sa.Double, nullable=False),
    )
    op.add_column("outbox", sa.Column("set_at", sa.DateTime(timezone=True)))
    op.execute("UPDATE outbox SET set_at = created_at")
    op.alter_column("outbox", "set_at", nullable=False)
    op.add_column("outbox", sa.Column("due_at", sa.DateTime(timezone=True)))
    op.add_column("approvals", sa.Column("moved_s", sa.Double, nullable=False, server_default="0"))
    op.add_column("approvals", sa.Column("stored_at", sa.DateTime(timezone=True)))  # of what was given before: not known
    op.alter_column("approvals", "stored_at", server_default=sa.text("clock_timestamp()"))
    op.add_column("plans", sa.Column("moved_s", sa.Double, nullable=False, server_default="0"))
    op.add_column("incidents", sa.Column("moved_s", sa.Double, nullable=False, server_default="0"))
    op.add_column("actions", sa.Column("moved_s", sa.Double, nullable=False, server_default="0"))
