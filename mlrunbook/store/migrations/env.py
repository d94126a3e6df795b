"""Alembic's entry: runs on the connection that `mlrunbook.base.db.upgrade` opened and locked."""

from alembic import context

from mlrunbook.base.db import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, include_schemas=True)
context.run_migrations()
