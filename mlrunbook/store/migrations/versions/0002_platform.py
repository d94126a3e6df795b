"""The model platform: registry, prediction log, work orders, changes, requests, alerts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002_platform"
down_revision = "0001_store"


def upgrade() -> None:
    op.execute("CREATE SCHEMA platform")

    op.create_table(
        "models",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("staging_version", sa.Text(), nullable=True),
        sa.Column("staged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("baseline_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("baseline_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_models")),
        schema="platform",
    )
    op.create_table(
        "predictions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asset_id", sa.Text(), nullable=False),
        sa.Column("asset_type", sa.Text(), nullable=False),
        sa.Column("features", postgresql.JSONB(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("label", sa.Boolean(), nullable=False),
        sa.Column("risk_level", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.Column("null_count", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Boolean(), nullable=True),
        sa.Column("outcome_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_predictions")),
        schema="platform",
    )
    op.create_index(
        "predictions_labelled",
        "predictions",
        ["model", "at"],
        unique=False,
        schema="platform",
        postgresql_where=sa.text("outcome IS NOT NULL"),
    )
    op.create_index("predictions_window", "predictions", ["model", "at"], unique=False, schema="platform")
    op.create_table(
        "serving_errors",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("model", "minute", "kind", name=op.f("pk_serving_errors")),
        schema="platform",
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("labels", postgresql.JSONB(), nullable=False),
        sa.Column("annotations", postgresql.JSONB(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("told", sa.Text(), nullable=True),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["model"], ["platform.models.name"], name=op.f("fk_alerts_model")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
        schema="platform",
    )
    op.create_index(
        "one_firing_alert_per_fingerprint",
        "alerts",
        ["fingerprint"],
        unique=True,
        schema="platform",
        postgresql_where=sa.text("ends_at IS NULL"),
    )
    op.create_table(
        "changes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("detail", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(["model"], ["platform.models.name"], name=op.f("fk_changes_model")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changes")),
        schema="platform",
    )
    op.create_index("changes_by_time", "changes", ["model", "at"], unique=False, schema="platform")
    op.create_table(
        "production",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("from_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("to_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["model"], ["platform.models.name"], name=op.f("fk_production_model")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_production")),
        schema="platform",
    )
    op.create_index(
        "one_serving_version_per_model", "production", ["model"], unique=True, schema="platform", postgresql_where=sa.text("to_at IS NULL")
    )
    op.create_index("production_by_model", "production", ["model", "id"], unique=False, schema="platform")
    op.create_table(
        "requests",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("target", postgresql.JSONB(), nullable=False),
        sa.Column("applied", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["platform.models.name"], name=op.f("fk_requests_model")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
        schema="platform",
    )
    op.create_index(
        "one_request_per_key",
        "requests",
        ["model", "kind", "key"],
        unique=True,
        schema="platform",
        postgresql_where=sa.text("key IS NOT NULL"),
    )
    op.create_table(
        "versions",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("sklearn_version", sa.Text(), nullable=False),
        sa.Column("trained_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("trained_to", sa.DateTime(timezone=True), nullable=False),
        sa.Column("features", postgresql.JSONB(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("metrics", postgresql.JSONB(), nullable=False),
        sa.Column("registered_by", sa.Text(), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["platform.models.name"], name=op.f("fk_versions_model")),
        sa.PrimaryKeyConstraint("model", "version", name=op.f("pk_versions")),
        schema="platform",
    )
    op.create_table(
        "work_orders",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("prediction_id", sa.BigInteger(), nullable=False),
        sa.Column("asset_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("needs_approval", sa.Boolean(), nullable=False),
        sa.Column("flagged_for_review", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("flagged_reason", sa.Text(), nullable=True),
        sa.Column("flagged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["platform.models.name"], name=op.f("fk_work_orders_model")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_work_orders")),
        schema="platform",
    )
    op.create_index(
        "one_open_work_order_per_asset",
        "work_orders",
        ["model", "asset_id"],
        unique=True,
        schema="platform",
        postgresql_where=sa.text("state IN ('pending', 'scheduled')"),
    )
