"""The policy against the world, later; and what an incident can do with what the policy names."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mlrunbook.domain.connecting import drift
from mlrunbook.domain.connecting.model import clock_trouble
from mlrunbook.domain.connecting.seen import (
    ClusterSeen,
    ColumnSeen,
    DeploymentSeen,
    Holds,
    MetricsSeen,
    RegisteredModel,
    ServiceSeen,
    TableSeen,
    ViewSeen,
)
from mlrunbook.domain.connecting.standing import Can, Means, standings
from mlrunbook.domain.policy.cluster import ClusterObjects
from mlrunbook.domain.policy.connections import (
    Columns,
    LivePart,
    OutcomeColumns,
    PlatformParts,
    PredictionsPart,
    RegistryPart,
    Replay,
    ReplayPart,
    Serving,
    Shadow,
)

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
REGISTRY = RegistryPart("mlflow")
CHURN = RegisteredModel("churn", ("1", "2"), {"champion": "2"})
COLUMNS = Columns(key="id", at="ts", score="p", version=None, day="dt")
LOG = PredictionsPart("lake", table="preds", outcomes_table="truth", columns=COLUMNS, outcomes=OutcomeColumns("id", "y", "seen_at"))
PREDS = TableSeen(
    "preds",
    (ColumnSeen("ID", Holds.TEXT), ColumnSeen("ts", Holds.TIME), ColumnSeen("p", Holds.NUMBER, 0, 1), ColumnSeen("dt", Holds.DATE)),
    newest={"ts": NOW - timedelta(minutes=5)},
)
TRUTH = TableSeen("truth", (ColumnSeen("id", Holds.TEXT), ColumnSeen("y", Holds.BOOLEAN), ColumnSeen("seen_at", Holds.TIME)))
OBJECTS = ClusterObjects("churn-server", "churn-server", "churn", config_map=None, pod_selector={"app": "churn"}, container="server")
CLUSTER = ClusterSeen(
    "ml", (DeploymentSeen("churn-server", {"server": "i"}, {"app": "churn"}, {"app": "churn"}),), (ServiceSeen("churn", {"app": "churn"}),)
)


def without(table: TableSeen, *names: str) -> TableSeen:
    return replace(table, columns=tuple(c for c in table.columns if c.name not in names))


def of_log(preds: TableSeen | None = PREDS, truth: TableSeen | None = TRUTH, part: PredictionsPart = LOG) -> list[str]:
    tables = {t.name: t for t in (preds, truth) if t is not None}
    return [d.part for d in drift.of_log("churn", part, tables, NOW)]


def test_a_world_that_is_as_the_policy_says_has_no_drift() -> None:
    assert not list(drift.of_registry("churn", REGISTRY, [CHURN]))
    assert not of_log()
    assert not list(drift.of_cluster("churn", OBJECTS, CLUSTER))
    assert not list(drift.of_live("churn", LivePart("p", requests='sum(rate(up{app="x"}[{window}]))'), MetricsSeen(frozenset({"up"}))))
    assert not list(drift.of_views("churn", ["activity"], [ViewSeen("activity", ())]))


@pytest.mark.parametrize(
    ("models", "part"),
    [([], "registry"), ([replace(CHURN, name="churn2")], "registry"), ([replace(CHURN, aliases={"prod": "2"})], "registry.serving_alias")],
)
def test_a_model_that_is_gone_or_has_no_alias_is_drift(models: list[RegisteredModel], part: str) -> None:
    assert [d.part for d in drift.of_registry("churn", REGISTRY, models)] == [part]


def test_a_table_that_is_gone_and_a_column_that_was_renamed_are_drift() -> None:
    assert of_log(preds=None) == ["predictions.table"]
    assert of_log(truth=None) == ["predictions.outcomes_table"]
    assert of_log(preds=without(PREDS, "p")) == ["predictions.columns.score"]
    assert of_log(truth=without(TRUTH, "seen_at")) == ["predictions.outcomes.reported_at"]
    renamed = replace(PREDS, columns=(*without(PREDS, "p").columns, ColumnSeen("p_", Holds.NUMBER, 0, 1)))
    [found] = drift.of_log("churn", LOG, {"preds": renamed, "truth": TRUTH}, NOW)
    assert "p_" in found.said


def test_a_column_that_holds_something_else_now_is_drift() -> None:
    as_text = replace(PREDS, columns=(*without(PREDS, "ts").columns, ColumnSeen("ts", Holds.TEXT)))
    assert of_log(as_text) == ["predictions.columns.at"]


def test_what_nobody_decided_is_drift() -> None:
    assert of_log(part=replace(LOG, columns=replace(COLUMNS, at="TODO"))) == ["predictions.columns.at"]
    assert [d.part for d in drift.of_registry("churn", RegistryPart("m", serving_alias="TODO"), [CHURN])] == ["registry.serving_alias"]


def test_objects_that_were_renamed_and_metrics_and_views_that_are_gone_are_drift() -> None:
    renamed = replace(CLUSTER, deployments=(replace(CLUSTER.deployments[0], name="churn-api"),), services=())
    assert [d.part for d in drift.of_cluster("churn", OBJECTS, renamed)] == ["cluster.scaled_deployment", "cluster.service"]
    other = replace(CLUSTER, deployments=(replace(CLUSTER.deployments[0], pod_labels={"app": "x"}, containers={"api": "i"}),))
    assert [d.part for d in drift.of_cluster("churn", OBJECTS, other)] == ["cluster.pod_selector", "cluster.container"]
    live = LivePart("p", error_rate='rate(http_requests_total{app="x"}[{window}])')
    assert [d.part for d in drift.of_live("churn", live, MetricsSeen(frozenset({"up"})))] == ["live.error_rate"]
    assert [d.part for d in drift.of_views("churn", ["activity"], [])] == ["feature_views"]


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (timedelta(minutes=-3), None),
        (timedelta(minutes=1), None),
        (timedelta(hours=2), "UTC+2"),
        (timedelta(hours=5, minutes=30, seconds=40), "UTC+5:30"),
        (timedelta(hours=-5), "UTC-5"),
        (timedelta(minutes=17), "clock"),
        (timedelta(hours=-3, minutes=-17), None),
        (timedelta(days=-3), None),
    ],
)
def test_times_of_another_zone_and_of_a_wrong_clock_are_told_from_a_quiet_log(ahead: timedelta, said: str | None) -> None:
    found = clock_trouble(replace(PREDS, newest={"ts": NOW + ahead}), "ts", NOW, "UTC")
    assert (found is None) == (said is None)
    assert said is None or said in str(found)


def cans(parts: PlatformParts, serving: Serving, objects: ClusterObjects | None = None, **more: object) -> dict[str, Can]:
    return {s.what: s.can for s in standings(Means(parts, serving, objects, **more))}  # type: ignore[arg-type]


def test_a_registry_alone_rolls_back_and_leaves_the_rest_to_people() -> None:
    found = cans(PlatformParts(registry=REGISTRY), Serving.NONE)
    assert found["path A, roll back"] is Can.YES
    assert {found[w] for w in ("path B, features", "path C, retrain", "path D, threshold", "stop, reroute, isolate")} == {Can.PERSON}
    assert found["F1, drift, segments"] is Can.NO


def test_a_warehouse_alone_is_measured_and_every_change_ends_at_a_person() -> None:
    found = cans(PlatformParts(predictions=LOG), Serving.NONE)
    assert found["F1, drift, segments"] is Can.YES
    assert {found[what] for what in found if what.startswith(("path A", "path B", "path D", "stop"))} == {Can.PERSON}


def test_with_everything_named_everything_is_done() -> None:
    log = replace(LOG, columns=replace(COLUMNS, version="v", segment="region"))
    live = LivePart("p", "a", "b", "c", "d")
    parts = PlatformParts(REGISTRY, log, live, ReplayPart(Replay.REST), shadow=Shadow.OFFLINE)
    objects = replace(OBJECTS, config_map="churn-config")
    found = cans(parts, Serving.KUBERNETES, objects, features=("activity",), reads_features=True, own_training=True)
    assert set(found.values()) == {Can.YES}


def test_a_deployment_without_a_config_or_a_service_is_stopped_and_no_more() -> None:
    found = cans(PlatformParts(registry=REGISTRY), Serving.KUBERNETES, replace(OBJECTS, service=None))
    assert (found["stop, isolate"], found["reroute to a version"], found["path D, threshold"]) == (Can.YES, Can.PERSON, Can.PERSON)


def test_replay_by_mlflow_compares_candidates_where_a_model_opted_in_and_the_machine_can_confine_it() -> None:
    parts = PlatformParts(REGISTRY, LOG, replay=ReplayPart(Replay.MLFLOW))
    assert cans(parts, Serving.NONE)["candidates, compared"] is Can.YES
    assert cans(parts, Serving.NONE)["candidates, in the shadow"] is Can.NO
    assert cans(replace(parts, shadow=Shadow.OFFLINE), Serving.NONE)["candidates, in the shadow"] is Can.YES
    assert cans(parts, Serving.NONE, not_confined="no Landlock")["candidates, compared"] is Can.NO
    assert cans(PlatformParts(REGISTRY, LOG), Serving.NONE)["candidates, compared"] is Can.NO
