"""The model platform's tables, all in the PostgreSQL schema "platform". Times are timestamptz, latencies ms."""

from __future__ import annotations

from functools import partial

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Double, ForeignKey, Identity, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from mlrunbook.base.db import metadata

SCHEMA = "platform"
_time = partial(Column, type_=DateTime(timezone=True))
_required_time = partial(Column, type_=DateTime(timezone=True), nullable=False)


def _model() -> Column:  # type: ignore[type-arg]
    return Column("model", Text, ForeignKey(f"{SCHEMA}.models.name"), nullable=False)


# One row a model. Whoever changes what serves locks it first, so changes of one model happen one after the other.
models = Table(
    "models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("staging_version", Text),
    _time("staged_at"),
    _time("baseline_since"),  # the pinned baseline window; NULL: the 7 days before the current window
    _time("baseline_until"),
    _required_time("created_at"),
    schema=SCHEMA,
)

versions = Table(
    "versions",
    metadata,
    Column("model", Text, ForeignKey(f"{SCHEMA}.models.name"), primary_key=True),
    Column("version", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("sklearn_version", Text, nullable=False),
    _required_time("trained_from"),
    _required_time("trained_to"),
    Column("features", JSONB, nullable=False),
    Column("threshold", Double, nullable=False),
    Column("metrics", JSONB, nullable=False),
    Column("asset_types", JSONB(none_as_null=True)),  # that it was trained on; NULL: registered before they were recorded
    Column("registered_by", Text, nullable=False),
    _required_time("registered_at"),
    schema=SCHEMA,
)

# What was in production and when. The open row (to_at IS NULL) is what serves; the one before it is `previous`.
production = Table(
    "production",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _model(),
    Column("version", Text, nullable=False),
    Column("kind", Text, nullable=False),  # promote, rollback
    _required_time("from_at"),
    _time("to_at"),
    Column("by", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Index("one_serving_version_per_model", "model", unique=True, postgresql_where=text("to_at IS NULL")),
    Index("production_by_model", "model", "id"),
    schema=SCHEMA,
)

predictions = Table(
    "predictions",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("model", Text, nullable=False),  # no foreign key: this is the hot path, and the server only serves registered models
    _required_time("at"),
    Column("asset_id", Text, nullable=False),
    Column("asset_type", Text, nullable=False),
    Column("features", JSONB, nullable=False),
    Column("score", Double, nullable=False),
    Column("label", Boolean, nullable=False),
    Column("risk_level", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("threshold", Double, nullable=False),
    Column("latency_ms", Double, nullable=False),
    Column("null_count", Integer, nullable=False),
    Column("outcome", Boolean),
    _time("outcome_at"),
    _time("first_outcome_at"),  # of an outcome that was corrected since
    Column("shadow_version", Text),  # what stood in staging then, and its score: nobody acted on it
    Column("shadow_score", Double),
    Index("predictions_window", "model", "at"),
    Index("predictions_missed", "model", "outcome_at", postgresql_where=text("outcome AND NOT label")),
    Index("predictions_labelled", "model", "at", postgresql_where=text("outcome IS NOT NULL")),
    schema=SCHEMA,
)

# Every version of every outcome since authors are kept; rows are only ever added.
outcomes = Table(
    "outcomes",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("prediction_id", BigInteger, nullable=False),
    Column("model", Text, nullable=False),
    _required_time("predicted_at"),
    Column("outcome", Boolean, nullable=False),
    Column("by", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("token_id", Text, nullable=False),
    _required_time("at"),
    Column("previous", Boolean),  # NULL: the first report
    _time("previous_at"),
    Column("rewrites", Boolean, nullable=False),  # what somebody else had reported, or what had settled
    Index("outcomes_of_prediction", "prediction_id", "id"),
    Index("outcomes_corrected", "model", "predicted_at", postgresql_where=text("previous IS NOT NULL")),
    Index("outcomes_corrected_at", "model", "at", postgresql_where=text("previous IS NOT NULL")),
    schema=SCHEMA,
)

# Predictions that were asked for and not delivered, counted by minute.
serving_errors = Table(
    "serving_errors",
    metadata,
    Column("model", Text, primary_key=True),
    _required_time("minute", primary_key=True),
    Column("kind", Text, primary_key=True),  # no_model, features, invalid_features, scoring, storage, busy, internal; predictions.REFUSED
    Column("count", Integer, nullable=False),
    schema=SCHEMA,
)

work_orders = Table(
    "work_orders",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _model(),
    Column("prediction_id", BigInteger, nullable=False),
    Column("asset_id", Text, nullable=False),
    Column("state", Text, nullable=False),  # pending, scheduled, done, cancelled
    Column("needs_approval", Boolean, nullable=False),
    Column("flagged_for_review", Boolean, nullable=False, server_default="false"),
    Column("flagged_reason", Text),
    _time("flagged_at"),
    _required_time("created_at"),
    Index("one_open_work_order_per_asset", "model", "asset_id", unique=True, postgresql_where=text("state IN ('pending', 'scheduled')")),
    schema=SCHEMA,
)

changes = Table(
    "changes",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _model(),
    Column("kind", Text, nullable=False),  # deployment, rollback, staging, config, infrastructure, feature_store
    Column("ref", Text, nullable=False),
    Column("author", Text, nullable=False),
    _required_time("at"),
    Column("detail", JSONB, nullable=False, server_default="{}"),
    Index("changes_by_time", "model", "at"),
    schema=SCHEMA,
)

# Every request to change something, and whether it did: `applied` rows are the changes really made.
requests = Table(
    "requests",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _model(),
    Column("kind", Text, nullable=False),  # register, staging, promote, rollback, config, restart, flag_work_orders, ..._feature_schedules
    Column("key", Text),  # the caller's Idempotency-Key
    Column("target", JSONB, nullable=False),
    Column("applied", Boolean, nullable=False),
    _required_time("at"),
    Index("one_request_per_key", "model", "kind", "key", unique=True, postgresql_where=text("key IS NOT NULL")),
    schema=SCHEMA,
)

# The scheduled materialisation of each feature view. A row appears with its first run.
feature_schedules = Table(
    "feature_schedules",
    metadata,
    Column("view", Text, primary_key=True),
    Column("suspended", Boolean, nullable=False, server_default="false"),
    _time("last_run_at"),
    _time("materialized_until"),
    Column("error", Text),  # why the last run failed
    Column("changed_by", Text),  # who suspended or resumed it last
    _time("changed_at"),
    schema=SCHEMA,
)

# Alerts the platform raised; also the queue of what the gateway has not been told yet.
alerts = Table(
    "alerts",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _model(),
    Column("name", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("labels", JSONB, nullable=False),
    Column("annotations", JSONB, nullable=False),
    _required_time("starts_at"),
    _time("quiet_since"),  # it still fires, but all has been well since then
    _time("ends_at"),
    Column("told", Text),  # the last status the gateway accepted: firing, resolved
    _time("told_at"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    _required_time("next_attempt_at"),
    Column("last_error", Text),
    Index("one_firing_alert_per_fingerprint", "fingerprint", unique=True, postgresql_where=text("ends_at IS NULL")),
    schema=SCHEMA,
)
