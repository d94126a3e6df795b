"""A real Feast on the session's PostgreSQL, one repository and database each test that asks for it."""

from __future__ import annotations

import itertools
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import psycopg

from mlrunbook.adapters.feast.api import CONFIG_FILE, open_store
from mlrunbook.local.features import lake
from mlrunbook.local.features.repository import apply, readings_folder, write_config
from mlrunbook.local.postgres import EmbeddedPostgres
from tests.local.platform.kit import reading

if TYPE_CHECKING:
    from feast import FeatureStore

_numbers = itertools.count(1)
SENSORS, WEAR = "asset_sensors", "asset_wear"


class Feast:
    """A repository with our definitions applied; `store` is the writer's."""

    def __init__(self, postgres: EmbeddedPostgres, folder: Path, *, applied: bool = True) -> None:
        self.repo, self.database = folder / "features", f"feast_kit_{next(_numbers)}"
        postgres.create_database(self.database)
        self.url = postgres.url(self.database)
        self.admin_url = postgres.url("postgres")
        file = write_config(self.repo, database_url=self.url)
        assert file == self.repo / CONFIG_FILE
        file.write_text(file.read_text().replace("cache_ttl_seconds: 5", "cache_ttl_seconds: 1"))
        if applied:
            self.store: FeatureStore = open_store(self.repo)
            apply(self.store, self.repo)

    @property
    def readings(self) -> Path:
        return readings_folder(self.repo)

    def land(self, at: datetime, *asset_ids: str, **values: Any) -> Path:
        rows = [{"asset_id": asset_id} | reading(**values) for asset_id in asset_ids]
        return lake.land(self.readings, pd.DataFrame(rows), at)

    def materialize(self, until: datetime, *views: str) -> None:
        self.store.materialize_incremental(end_date=until, feature_views=list(views) or [SENSORS, WEAR])

    def online(self, asset_id: str, feature: str = "tool_wear_min") -> Any:
        """As Feast itself reads it."""
        view = WEAR if feature == "tool_wear_min" else SENSORS
        return self.store.get_online_features([f"{view}:{feature}"], [{"asset_id": asset_id}]).to_dict()[feature][0]

    def sql(self, *statements: str) -> list[Any]:
        """Rows of the last statement, in the store's database."""
        with psycopg.connect(self.url, autocommit=True) as conn:
            for statement in statements:
                cursor = conn.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def cut_connections(self) -> None:
        """What a restart of PostgreSQL does to everybody; `store` is given a new one, as Feast itself does not."""
        with psycopg.connect(self.admin_url, autocommit=True) as conn:
            conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self.database])
        self.store._get_provider().online_store._conn = None  # type: ignore[attr-defined]

    def let_in(self, allowed: bool) -> None:
        with psycopg.connect(self.admin_url, autocommit=True) as conn:
            conn.execute(f'ALTER DATABASE "{self.database}" ALLOW_CONNECTIONS {allowed}')  # type: ignore[call-overload]
