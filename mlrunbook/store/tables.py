"""The incident store's tables. Times are timestamptz; bodies are JSONB in snake_case."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from mlrunbook.base.db import metadata

ONE_OPEN = "status NOT IN ('closed', 'false_alarm')"
# What a search of incidents looks into. Functions of the database (migration 0018), so that it knows what it costs to read a text's words.
INCIDENT_WORDS = "incident_words(model, description, impact)"
CAUSE_WORDS = "cause_words(data)"
CAUSE_STEPS = "step IN ('diagnosis', 'human_resolution')"
ITEM_IS_OPEN = "status IN ('not started', 'in progress')"
OPENING = "kind = 'detected' OR data ->> 'reopened' = 'true'"  # an entry of the timeline


def _time(name: str, *, required: bool = False) -> Column:  # type: ignore[type-arg]
    return Column(name, DateTime(timezone=True), nullable=not required)


def _incident_id(*, nullable: bool = False, primary_key: bool = False) -> Column:  # type: ignore[type-arg]
    return Column("incident_id", Text, ForeignKey("incidents.id"), nullable=nullable, primary_key=primary_key)


incidents = Table(
    "incidents",
    metadata,
    Column("number", BigInteger, Identity(), nullable=False, unique=True),
    Column("id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("model_version", Text),
    Column("type", Text, nullable=False),
    Column("family", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("impact", Text, nullable=False, server_default=""),
    Column("reported_by", Text, nullable=False),
    _time("started_at"),
    _time("detected_at", required=True),
    _time("acknowledged_at"),
    Column("acknowledged_by", Text),
    _time("contained_at"),
    _time("resolved_at"),
    _time("closed_at"),
    _time("review_due_at"),
    Column("generation", Integer, nullable=False, server_default="1"),
    Column("alert_count", Integer, nullable=False, server_default="0"),
    Column("moved_s", Double, nullable=False, server_default="0"),  # how far the clock was set back while it was open
    Index(
        "one_open_incident_per_model_and_family",
        "model",
        "family",
        unique=True,
        postgresql_where=text(ONE_OPEN),
    ),
    Index("incidents_of_model", "model", "number"),
    Index("incidents_by_words", text(INCIDENT_WORDS), postgresql_using="gin"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _incident_id(nullable=True),
    Column("source", Text, nullable=False),
    Column("sender", Text, nullable=False, server_default=""),  # empty: ours, or of a time when senders were not told apart
    Column("fingerprint", Text, nullable=False),
    Column("key", Text, nullable=False),  # sender, source and fingerprint as one hash: they are others' words, of any length
    _time("starts_at", required=True),
    Column("status", Text, nullable=False),
    Column("end_noted", Boolean, nullable=False, server_default="false"),  # its end is on the timeline
    Column("body", JSONB, nullable=False),
    Column("count", Integer, nullable=False, server_default="1"),
    _time("received_at", required=True),
    _time("last_seen_at", required=True),
    UniqueConstraint("key", "starts_at", name="alert_identity"),
    Index("alerts_of_incident", "incident_id", "id"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("source", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("error", Text, nullable=False),
    _time("received_at", required=True),
    Column("headers", JSONB, nullable=False, server_default="{}"),  # those that a normaliser reads: without them the body says nothing
    Column("sender", Text, nullable=False, server_default=""),
    _time("replayed_at"),
    Column("replayed_into", JSONB),  # the receipt
    Column("proof", JSONB),  # how its sender was proven when it was received; None: not known
    Column("key", Text),  # of the message and its sender: the same again, while it waits, is counted
    Column("times", Integer, nullable=False, server_default="1"),
    Index("one_row_per_waiting_message", "key", unique=True, postgresql_where=text("replayed_at IS NULL")),
)

# What a sender numbered itself, with what it was answered: the same delivery again is answered the same and changes nothing.
deliveries = Table(
    "deliveries",
    metadata,
    Column("source", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("receipt", JSONB, nullable=False),
    _time("received_at", required=True),
    Index("deliveries_by_age", "received_at"),
)

# Changes of a model's world that other systems told us of; the model platform keeps its own.
changes = Table(
    "changes",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("model", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("ref", Text, nullable=False),
    Column("author", Text, nullable=False),
    _time("at", required=True),
    Column("source", Text, nullable=False),
    Column("detail", JSONB, nullable=False, server_default="{}"),
    _time("received_at", required=True),
    Index("one_row_per_change", "model", "kind", text("md5(ref)"), "at", unique=True),  # a ref is longer than an index row may be
    Index("changes_of_model", "model", "at"),
    Index("changes_by_source", "source", "received_at"),
)

# What each rule of the monitor flow remembers between its runs.
rule_states = Table(
    "rule_states",
    metadata,
    Column("model", Text, primary_key=True),
    Column("rule", Text, primary_key=True),  # alert:level
    _time("bad_since"),
    _time("firing_since"),
    _time("quiet_since"),
    Column("sentence", Text, nullable=False),
    _time("evaluated_at", required=True),
)

# The period that each model was last proven healthy in.
baseline_pins = Table(
    "baseline_pins",
    metadata,
    Column("model", Text, primary_key=True),
    _time("since", required=True),
    _time("until", required=True),
    Column("why", Text, nullable=False),
    _time("pinned_at", required=True),
)

timeline = Table(
    "timeline",
    metadata,
    _incident_id(primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    _time("at", required=True),
    Column("kind", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("data", JSONB, nullable=False, server_default="{}"),
    Column("prev_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index("timeline_of_kind", "incident_id", "kind", "seq"),
    Index("timeline_openings", "at", postgresql_where=text(OPENING)),
)

# One event for every row written of the incident's other tables (`mlrunbook.store.row_events`), chained like the timeline. Neither this nor
# the head refers to the incident's row: who deletes that leaves these.
row_events = Table(
    "row_events",
    metadata,
    Column("incident_id", Text, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    _time("at", required=True),  # by the database's clock
    Column("table_name", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("content", JSONB(none_as_null=True)),  # every column, as text or digest; NULL: the row was deleted
    Column("prev_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index("row_events_of_row", "incident_id", "table_name", text("md5(key)"), "seq"),
)

chain_heads = Table(
    "chain_heads",
    metadata,
    Column("incident_id", Text, primary_key=True),
    Column("entries", Integer, nullable=False, server_default="0"),
    Column("entries_hash", Text, nullable=False, server_default="0" * 64),
    Column("events", Integer, nullable=False, server_default="0"),
    Column("events_hash", Text, nullable=False, server_default="0" * 64),
    _time("changed_at", required=True),
    Index("chain_heads_by_change", "changed_at", "incident_id"),
)

# What a step of the runbook found or decided, once a step and incident ("do what is not yet recorded").
records = Table(
    "records",
    metadata,
    _incident_id(primary_key=True),
    Column("step", Text, primary_key=True),
    Column("data", JSONB, nullable=False),
    _time("recorded_at", required=True),
    Index("records_of_step", "step", "recorded_at"),
    Index("records_by_words_of_cause", text(CAUSE_WORDS), postgresql_using="gin", postgresql_where=text(CAUSE_STEPS)),
)

# Containment, resolution and undo plans by digest. A newer plan of the same kind supersedes an undecided or
# unexecuted older one, and with it the approvals given for it.
plans = Table(
    "plans",
    metadata,
    _incident_id(primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("body", JSONB, nullable=False),
    _time("proposed_at", required=True),
    _time("superseded_at"),
    Column("moved_s", Double, nullable=False, server_default="0"),  # how far the clock was set back since: `proposed_at` moves along
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _incident_id(),
    Column("plan_digest", Text, nullable=False),
    Column("decision", Text, nullable=False),  # approved, rejected
    Column("approver", Text, nullable=False),
    Column("person", Text, nullable=False),  # who counts: a person id, or the door where nobody is proven
    Column("role", Text),
    Column("door", Text, nullable=False),  # cli, rest, console, prefect_form, policy_rule
    Column("verified", Boolean, nullable=False),  # False: the door cannot prove who it was
    Column("reason", Text, nullable=False, server_default=""),
    _time("at", required=True),
    _time("expires_at"),
    _time("voided_at"),
    Column("voided_because", Text),
    Column("moved_s", Double, nullable=False, server_default="0"),  # how far the clock was set back since: `at` and `expires_at` move along
    Column("stored_at", DateTime(timezone=True), server_default=text("clock_timestamp()")),  # by the database's own clock
    Index("approvals_of_incident", "incident_id", "id"),
)

# The journal of every change to the world, written by execute() and nobody else.
actions = Table(
    "actions",
    metadata,
    Column("id", Text, primary_key=True),
    _incident_id(),
    Column("plan_digest", Text, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("target", JSONB, nullable=False),
    Column("summary", Text, nullable=False),
    Column("approval_id", BigInteger, ForeignKey("approvals.id"), nullable=False),
    Column("generation", Integer, nullable=False),
    # intended, applying, done, already_held, unknown, refused
    Column("state", Text, nullable=False),
    Column("before", JSONB),
    Column("after", JSONB),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("undo_of", Text, ForeignKey("actions.id")),
    Column("undone_by", Text),
    Column("kept_because", Text),
    Column("error", Text),
    _time("intended_at", required=True),
    _time("done_at"),
    Column("moved_s", Double, nullable=False, server_default="0"),  # how far the clock was set forward in the hour after
    UniqueConstraint("incident_id", "plan_digest", "ordinal", name="one_row_per_planned_action"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _incident_id(nullable=True),
    Column("kind", Text, nullable=False),  # page, message, start_run, resume_run, timer
    Column("dedup_key", Text, nullable=False, unique=True),
    Column("payload", JSONB, nullable=False),
    _time("not_before", required=True),
    _time("due_at"),  # of a row that has failed: when it should have gone out
    _time("set_at", required=True),  # what the clock showed when `not_before` and `claimed_until` were set: the difference is the wait
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
    _time("claimed_until"),
    _time("delivered_at"),
    _time("cancelled_at"),
    _time("created_at", required=True),
    Index("outbox_of_incident", "incident_id", "id"),
    Index("outbox_due", "not_before", postgresql_where=text("delivered_at IS NULL AND cancelled_at IS NULL")),
)

leases = Table(
    "leases",
    metadata,
    _incident_id(primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("holder", Text),  # the flow run; None: nobody
    Column("state", Text, nullable=False),  # free, starting, running, waiting, done
    _time("expires_at"),  # by the clock, as 0.1 had it: kept as it was, not read
    Column("renewals", BigInteger, nullable=False, server_default="0"),  # grows with every sign of life
    Column("silent_after_s", Double),  # without one for so long it is looked after; None: never
    Column("again", Boolean, nullable=False, server_default="false"),  # somebody acted while a run was at work: look once more
)

# Since when, in seconds awake since its boot, a machine has seen a lease stand still at this count.
lease_looks = Table(
    "lease_looks",
    metadata,
    Column("boot", Text, primary_key=True),
    Column("incident_id", Text, primary_key=True),  # no foreign key: its check would wait for whoever holds the incident
    Column("renewals", BigInteger, nullable=False),
    Column("since_s", Double, nullable=False),
)

# What the clock of each boot of a machine shows, less the seconds since that boot: constant until somebody sets the clock.
clocks = Table(
    "clocks",
    metadata,
    Column("boot", Text, primary_key=True),
    Column("offset_s", Double, nullable=False),
    _time("seen_at", required=True),
)

evidence = Table(
    "evidence",
    metadata,
    _incident_id(primary_key=True),
    Column("name", Text, primary_key=True),
    Column("media_type", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
    _time("taken_at", required=True),
)

action_items = Table(
    "action_items",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _incident_id(),
    Column("action", Text, nullable=False),
    Column("owner_role", Text, nullable=False),
    _time("due_at", required=True),
    Column("status", Text, nullable=False, server_default="not started"),
    _time("ended_at"),
    Column("ended_by", Text),
    Column("note", Text, nullable=False, server_default=""),
    Index("one_item_per_action", "incident_id", text("md5(action)"), unique=True),
    Index("action_items_due", "due_at", "id", postgresql_where=text(ITEM_IS_OPEN)),
)

# One audit of one model and period, with the report as it was written.
audits = Table(
    "audits",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("model", Text, nullable=False),
    Column("kind", Text, nullable=False),  # weekly, monthly, quarterly, annual
    Column("period", Text, nullable=False),
    _time("since", required=True),
    _time("until", required=True),
    _time("at", required=True),
    Column("verdict", Text, nullable=False),  # pass, fail, not_enough_data
    Column("sections", JSONB, nullable=False),
    Column("report", LargeBinary, nullable=False),
    Column("sha256", Text, nullable=False),
    UniqueConstraint("model", "kind", "period", name="one_audit_per_period"),
)

drills = Table(
    "drills",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _time("held_at", required=True),
    Column("what", Text, nullable=False),
    Column("result", Text, nullable=False),
    UniqueConstraint("held_at", "what", name="one_drill_per_time"),
)

# Who is signed in to the console. The secret itself is in the browser's cookie alone.
console_sessions = Table(
    "console_sessions",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("door", Text, nullable=False),  # token, link, oidc, proxy
    Column("token_id", Text),  # whose rights it has; None: those of `groups`
    Column("person", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("groups", ARRAY(Text), nullable=False, server_default="{}"),
    Column("id_token", Text),  # the provider's, to end its session too
    _time("signed_in_at", required=True),
    _time("seen_at", required=True),  # to the minute
    _time("expires_at", required=True),
    _time("ended_at"),
)

# What is good once: a sign-in link, the way to a provider and back.
console_one_time_secrets = Table(
    "console_one_time_secrets",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("purpose", Text, nullable=False),
    Column("data", JSONB, nullable=False),
    _time("expires_at", required=True),
)

# What the aliases of a model registry named and when they moved: MLflow keeps no such history.
registry_moves = Table(
    "registry_moves",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("model", Text, nullable=False),
    Column("alias", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
    _time("at", required=True),
    Column("kind", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("seen_by", Text, nullable=False),
    Column("key", Text, unique=True),  # of a change of ours
    Column("made", Boolean, nullable=False),  # false: begun, and not seen in the registry yet
    Column("answered", Boolean, nullable=False),  # the servers have followed
    Column("note", Text, nullable=False, server_default=""),
    Index("registry_moves_of_model", "model", "id"),
)

# What each version was made of when it was first seen.
registry_versions = Table(
    "registry_versions",
    metadata,
    Column("model", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("made_of", Text, nullable=False),
    _time("seen_at", required=True),
)

# Every change of a model's mode that was seen in policy.
mode_changes = Table(
    "mode_changes",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("model", Text, nullable=False),  # a name or pattern of policy, * for all others
    Column("was", Text),
    Column("mode", Text, nullable=False),
    Column("policy", Text, nullable=False),  # the SHA-256 of the policy that says so
    _time("at", required=True),
    Column("by", Text),  # who says why
    Column("why", Text),
    _time("explained_at"),
    Index("mode_changes_of_model", "model", "id"),
)
