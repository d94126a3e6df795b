"""What the feature store of the fleet holds: one entity, one Parquet source, two views, one service.

Pure builders; `feast` comes in as an argument because importing it takes seconds (mlrunbook.adapters.feast.api).
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from mlrunbook.local.platform.columns import ASSET_TYPE, RAW

PROJECT = "fleet"
ENTITY, JOIN_KEY = "asset", "asset_id"
SERVICE = "asset_features"
EVENT_TIME, CREATED = "event_timestamp", "created"
# A sensor reading ages fast; wear only grows. Feast reads the lifetime when it joins history, not when it reads online.
VIEWS: dict[str, tuple[str, ...]] = {
    "asset_sensors": (ASSET_TYPE, "air_temperature_k", "process_temperature_k", "rotational_speed_rpm", "torque_nm"),
    "asset_wear": ("tool_wear_min",),
}
TTL = timedelta(days=30)


def entity(feast: ModuleType) -> Any:
    return feast.Entity(name=ENTITY, join_keys=[JOIN_KEY], value_type=feast.ValueType.STRING, description="One machine of the fleet")


def source(feast: ModuleType, readings: Path) -> Any:
    """The Parquet files below `readings`. The format is named: Feast asks the file's ending, and that of a pattern is no format."""
    from feast.data_format import ParquetFormat

    return feast.FileSource(
        name="readings",
        path=f"{readings}/*.parquet",
        file_format=ParquetFormat(),
        timestamp_field=EVENT_TIME,
        created_timestamp_column=CREATED,
    )


def views(feast: ModuleType, readings: Path) -> list[Any]:
    """The schema is spelt out, so that `apply` opens no file and works before the first reading has landed."""
    from feast.types import Float64, String

    asset, files = entity(feast), source(feast, readings)
    return [
        feast.FeatureView(
            name=name,
            entities=[asset],
            ttl=TTL,
            schema=[
                feast.Field(name=JOIN_KEY, dtype=String),
                *(feast.Field(name=column, dtype=String if column == ASSET_TYPE else Float64) for column in columns),
            ],
            source=files,
        )
        for name, columns in VIEWS.items()
    ]


def service(feast: ModuleType, of: list[Any]) -> Any:
    return feast.FeatureService(name=SERVICE, features=of, description=f"What the model reads: {', '.join(RAW)}")


def definitions(feast: ModuleType, readings: Path) -> list[Any]:
    """Everything to apply, in Feast's order."""
    built = views(feast, readings)
    return [entity(feast), source(feast, readings), *built, service(feast, built)]
