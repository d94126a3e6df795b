"""The folder of the feature store in the box: `<data>/features` with feature_store.yaml and the readings as Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from sqlalchemy.engine import make_url

from mlrunbook.adapters.feast.api import CONFIG_FILE, load_feast
from mlrunbook.base import secret_file
from mlrunbook.local.features.definitions import PROJECT, definitions

if TYPE_CHECKING:
    from feast import FeatureStore

REGISTRY_TTL_S = 5
# Rows a transaction while materialising: bounds memory (920 MB at a million entities, 4 GB without) and how long a lock is held.
WRITE_BATCH = 10_000


def readings_folder(repo: Path) -> Path:
    return repo / "source" / "readings"


def write_config(repo: Path, *, database_url: str) -> Path:
    """Write `<repo>/feature_store.yaml` for the PostgreSQL database at `database_url`; return the file.

    Readable by us alone: it holds the password, which Feast takes from nowhere else.
    """
    url = make_url(database_url)
    host = url.host or url.query.get("host")
    if isinstance(host, tuple):
        host = host[0]
    config: dict[str, Any] = {
        "project": PROJECT,
        "provider": "local",
        "entity_key_serialization_version": 3,
        "registry": {
            "registry_type": "sql",
            "path": url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False),
            "cache_ttl_seconds": REGISTRY_TTL_S,
            "sqlalchemy_config_kwargs": {"echo": False, "pool_pre_ping": True, "pool_size": 2},
        },
        "online_store": {
            "type": "postgres",
            "host": host or "localhost",
            "port": url.port or 5432,
            "database": url.database,
            "user": url.username,
            "password": url.password or "",
            "db_schema": "public",
            "sslmode": "disable" if str(host).startswith("/") else "prefer",
        },
        "offline_store": {"type": "duckdb"},
        "materialization": {"online_write_batch_size": WRITE_BATCH},
        "telemetry": False,
    }
    readings_folder(repo).mkdir(parents=True, exist_ok=True)
    file = repo / CONFIG_FILE
    secret_file.write(file, yaml.safe_dump(config, sort_keys=False))
    return file


def apply(store: FeatureStore, repo: Path) -> None:
    """Bring the registry and the online tables up to the definitions. Safe to repeat: what is the same stays untouched."""
    store.apply(definitions(load_feast(), readings_folder(repo)))
