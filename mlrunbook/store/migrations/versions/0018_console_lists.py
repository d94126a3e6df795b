"""What the console's lists ask for: incidents of a model, incidents by words, action items that are due."""

from alembic import op

revision = "0018_console_lists"
down_revision = "0016_console_sessions"

# The cost keeps the planner from reading the words of a hundred thousand texts to find one that is in the index. In plpgsql, because a
# function in SQL is inlined and its cost forgotten.
FUNCTION = """CREATE FUNCTION {name} RETURNS tsvector LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 10000 AS
'BEGIN RETURN to_tsvector(''simple'', left(translate({words}, ''_'', '' ''), 100000)); END'"""


def upgrade() -> None:
    told = "model || '' '' || description || '' '' || impact"
    op.execute(FUNCTION.format(name="incident_words(model text, description text, impact text)", words=told))
    cause = "concat_ws('' '', data ->> ''headline'', data ->> ''cause'', data ->> ''root_cause'', data ->> ''what'')"
    op.execute(FUNCTION.format(name="cause_words(data jsonb)", words=cause))
    op.execute("CREATE INDEX incidents_of_model ON incidents (model, number)")
    op.execute("CREATE INDEX incidents_by_words ON incidents USING gin (incident_words(model, description, impact))")
    where = "step IN ('diagnosis', 'human_resolution')"
    op.execute(f"CREATE INDEX records_by_words_of_cause ON records USING gin (cause_words(data)) WHERE {where}")
    op.execute("CREATE INDEX action_items_due ON action_items (due_at, id) WHERE status IN ('not started', 'in progress')")
