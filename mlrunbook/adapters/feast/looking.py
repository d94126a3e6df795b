"""Which feature views a repository has, with their features. Feast takes seconds to import."""

from __future__ import annotations

from pathlib import Path

from mlrunbook.adapters.feast.api import first_line, open_store
from mlrunbook.domain.connecting.seen import ViewSeen
from mlrunbook.domain.errors import Refused, RunbookError


def views(repo: Path) -> tuple[ViewSeen, ...]:
    try:
        found = open_store(repo).list_batch_feature_views()
        return tuple(ViewSeen(v.name, tuple(f.name for f in v.features), tuple(c.name for c in v.entity_columns)) for v in found)
    except RunbookError:
        raise
    except Exception as error:  # whatever the registry's own library raises
        raise Refused(f"the registry of the feature store at {repo} cannot be read: {first_line(error)}") from error
