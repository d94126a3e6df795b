"""An alert is known by sender, source and fingerprint as one hash; no key of others is too long for an index; lists have their indexes."""

import sqlalchemy as sa
from alembic import op

revision = "0009_intake_keys"
down_revision = "0008_action_items"

# As `mlrunbook.store.alerts.Identity.key`; the sender of what was stored before is not known.
KEY = "encode(sha256(convert_to(sender || E'\\x1f' || source || E'\\x1f' || fingerprint, 'UTF8')), 'hex')"


def upgrade() -> None:
    op.add_column("alerts", sa.Column("sender", sa.Text, nullable=False, server_default=""))
    op.add_column("alerts", sa.Column("key", sa.Text))
    op.execute("UPDATE alerts SET key = " + KEY)  # noqa: S608  a constant
    op.alter_column("alerts", "key", nullable=False)
    op.add_column("alerts", sa.Column("end_noted", sa.Boolean, nullable=False, server_default="false"))
    op.execute("UPDATE alerts SET end_noted = true WHERE status = 'resolved' AND incident_id IS NOT NULL")
    op.drop_constraint("alert_identity", "alerts")
    op.create_unique_constraint("alert_identity", "alerts", ["key", "starts_at"])
    op.create_index("alerts_of_incident", "alerts", ["incident_id", "id"])
    op.drop_constraint("one_row_per_change", "changes")
    op.create_index("one_row_per_change", "changes", ["model", "kind", sa.text("md5(ref)"), "at"], unique=True)
    op.drop_constraint("one_item_per_action", "action_items")
    op.create_index("one_item_per_action", "action_items", ["incident_id", sa.text("md5(action)")], unique=True)
    op.create_index("timeline_of_kind", "timeline", ["incident_id", "kind", "seq"])
    opening = sa.text("kind = 'detected' OR data ->> 'reopened' = 'true'")
    op.create_index("timeline_openings", "timeline", ["at"], postgresql_where=opening)
    op.create_index("records_of_step", "records", ["step", "recorded_at"])
    op.create_index("approvals_of_incident", "approvals", ["incident_id", "id"])
    op.create_index("outbox_of_incident", "outbox", ["incident_id", "id"])
