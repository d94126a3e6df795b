"""Whatever a platform puts in the place of a value: what comes through the adapter is of its kind, or is refused by its name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from mlrunbook.adapters.model_platform import HttpPlatform
from mlrunbook.domain.errors import Refused, RunbookError, Unknown
from mlrunbook.domain.observed import Prediction
from mlrunbook.domain.tally import TASKS, Confusion
from mlrunbook.ports import ModelPlatform
from mlrunbook.response.execution import handlers
from tests import answering_platform as answering
from tests.domain.other_tasks import AbsoluteErrors
from tests.fakes import MODEL, Clock, FileWorld

NOT_UNDERSTOOD = [math.nan, math.inf, -math.inf, None, "no such value", "", ["x"], {"a": 1}, True, -1, 10**30, 1e300, -1e300, "\0\ud800"]


@pytest.fixture(scope="module")
def file_world(tmp_path_factory: pytest.TempPathFactory) -> FileWorld:
    made = FileWorld(tmp_path_factory.mktemp("world") / "world.json", Clock())
    made.set(work_orders=[{"id": 1, "asset": "asset_1", "flagged": False}])
    return made


@pytest.mark.parametrize("value", NOT_UNDERSTOOD, ids=repr)
def test_every_value_of_every_answer_is_of_its_kind_or_refused(file_world: FileWorld, value: Any) -> None:
    for name, answer in answering.answers(file_world, MODEL).items():
        for path in answering.paths(answer):

            def spoil(of: str, whole: Any, name: str = name, path: answering.Path = path) -> Any:
                return answering.spoiled(whole, path, value) if of == name else whole

            for read in answering.reads(answering.platform(file_world, spoil), MODEL):
                try:
                    got = read()
                except RunbookError:
                    continue
                wrong = [where for where in _numbers_that_are_none(got)]
                assert not wrong, f"{name}: {path} = {value!r} came through as {wrong}"


def _numbers_that_are_none(value: Any) -> Iterator[Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if isinstance(value, Prediction):
            assert isinstance(value.asset_id, str)
            assert isinstance(value.version, str)
        value = vars(value)
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _numbers_that_are_none(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers_that_are_none(inner)
    elif (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, str) and ("\0" in value or "\ud800" in value)):
        yield value


@pytest.mark.parametrize("field", ["labelDelayS", "matureAgeS", "flaggedShare", "latencyP95Ms", "errorRate", "nullRate"])
@pytest.mark.parametrize("value", [math.nan, math.inf, None, "3", -1, 1e300, [], True])
def test_a_figure_that_is_none_is_not_known_and_the_rest_still_counts(file_world: FileWorld, field: str, value: Any) -> None:
    def spoil(name: str, whole: Any) -> Any:
        return answering.spoiled(whole, ("current", field), value) if name == "metrics" else whole

    clean, seen = file_world.metrics(MODEL), answering.platform(file_world, spoil).metrics(MODEL)
    ours = {"labelDelayS": "label_delay_s", "latencyP95Ms": "latency_p95_ms", "errorRate": "error_rate"}
    ours |= {"flaggedShare": "flagged_share", "nullRate": "null_rate", "matureAgeS": "mature_age_s"}
    assert getattr(seen.current, ours[field]) is None
    assert seen.current.confusion == clean.current.confusion


@pytest.mark.parametrize(
    ("answer", "path", "value"),
    [
        ("status", ("serverHealthy",), None),
        ("status", ("serverHealthy",), "yes"),
        ("status", ("serverVersion",), ["v2"]),
        ("status", ("deployedAt",), "2026-13-45"),
        ("status", ("deployedAt",), 1_772_000_000),
        ("metrics", ("current", "confusionMatrix", "fp"), 10**12),
        ("metrics", ("current", "confusionMatrix", "tp"), math.nan),
        ("metrics", ("current", "labelled"), 10**9),
        ("metrics", ("baseline", "until"), "0001-01-01T00:00:00-12:00"),
        ("metrics", ("current", "blocks"), [[1, 2, 3]]),
        ("predictions/logs", ("predictions", 1, "outcome"), "failed"),
        ("replay", ("versions", 0, "scores", 1), math.nan),
    ],
)
def test_what_others_rest_on_is_refused_with_its_name(file_world: FileWorld, answer: str, path: answering.Path, value: Any) -> None:
    def spoil(name: str, whole: Any) -> Any:
        return answering.spoiled(whole, path, value) if name == answer else whole

    failed = []
    for read in answering.reads(answering.platform(file_world, spoil), MODEL):
        try:
            read()
        except Refused as error:
            failed.append(str(error))
    assert len(failed) == 1
    assert "not the runbook's shape" in failed[0]
    assert [name for name in path if isinstance(name, str)][-1] in failed[0]


def test_the_sums_of_another_task_are_read_by_its_tally(file_world: FileWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "regression", AbsoluteErrors)
    sums = {"tally": {"n": 40, "absolute": 12.5}, "blocks": [{"n": 20, "absolute": 7.5}, {"n": 20, "absolute": 5}]}

    def spoil(name: str, whole: Any) -> Any:
        if name == "metrics":
            whole["current"] |= {"task": "regression", "predictions": 40, "labelled": 40, "byRiskLevel": {}, "byAssetType": {"pump": sums}}
            whole["current"] |= sums
        return whole

    now = answering.platform(file_world, spoil).metrics(MODEL).current
    assert now.tally == now.by_asset_type["pump"] == AbsoluteErrors(40, 12.5)
    assert now.blocks == now.blocks_by_asset_type["pump"] == (AbsoluteErrors(20, 7.5), AbsoluteErrors(20, 5.0))
    assert now.confusion == Confusion()


@pytest.mark.parametrize("wrong", [{"n": 41, "absolute": 1.0}, {"n": 3.5, "absolute": 1.0}, {"n": 40}, {"n": 40, "absolute": math.nan}, 7])
def test_sums_of_another_task_that_cannot_be_are_refused(file_world: FileWorld, monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    monkeypatch.setitem(TASKS, "regression", AbsoluteErrors)

    def spoil(name: str, whole: Any) -> Any:
        if name == "metrics":
            whole["current"] |= {
                "task": "regression",
                "predictions": 40,
                "labelled": 40,
                "tally": wrong,
                "byAssetType": {},
                "byRiskLevel": {},
            }
        return whole

    with pytest.raises(Refused, match="tally"):
        answering.platform(file_world, spoil).metrics(MODEL)


def test_a_task_that_nobody_knows_here_is_refused_by_name(file_world: FileWorld) -> None:
    def spoil(name: str, whole: Any) -> Any:
        if name == "metrics":
            whole["baseline"]["task"] = "ranking"
        return whole

    with pytest.raises(Refused, match=r"task.*binary"):
        answering.platform(file_world, spoil).metrics(MODEL)


def test_a_request_that_names_no_asset_is_one_by_itself(file_world: FileWorld) -> None:
    def spoil(name: str, whole: Any) -> Any:
        for i in range(2 if name == "predictions/logs" else 0):
            whole["predictions"][i] |= {"assetId": None, "assetType": None}
        return whole

    first, second = answering.platform(file_world, spoil).prediction_log(MODEL, limit=2)
    assert first.asset_id != second.asset_id
    assert first.asset_type == "unknown"


def counting(request: httpx.Request) -> httpx.Response:
    """A registry that counts its versions."""
    times = {"registeredAt": "2026-03-01T00:00:00Z", "trainedFrom": "2026-01-01T00:00:00Z", "trainedTo": "2026-02-01T00:00:00Z"}
    row = {"predictionId": 1, "at": "2026-03-01T00:00:00Z", "assetId": 17, "assetType": 1, "features": {}, "score": 0.5, "label": 1}
    row |= {"version": 3, "threshold": 0.5, "latencyMs": None, "outcome": 0}
    status = {"model": "m", "servingVersion": 3, "previousVersion": 2, "stagingVersion": 4, "serverHealthy": True, "serverVersion": 3}
    bodies = {
        "status": status | {"server": {"notLoaded": {"version": 3, "error": "no such file"}}},
        "versions": {"versions": [{"version": n, "features": ["a"], "threshold": 0.5} | times for n in (1, 2, 3)]},
        "changes": {"changes": [{"kind": "deployment", "ref": 3, "author": None, "at": "2026-03-01T00:00:00Z"}]},
        "logs": {"predictions": [row]},
        "replay": {"rows": [row], "versions": [{"version": 2, "scores": [0.5]}]},
        "rollback": status | {"servingVersion": 2, "serverVersion": 2},
    }
    return httpx.Response(200, json=bodies[request.url.path.rpartition("/")[2]])


def test_a_version_is_one_text_everywhere_however_the_registry_writes_it() -> None:
    platform: ModelPlatform = HttpPlatform("http://platform", transport=httpx.MockTransport(counting))
    status, since = platform.status("m"), datetime(2026, 1, 1, tzinfo=UTC)
    assert (status.serving_version, status.previous_version, status.staging_version, status.server_version) == ("3", "2", "4", "3")
    assert status.not_loaded == "no such file"
    assert [v.version for v in platform.versions("m")] == ["1", "2", "3"]
    assert [c.ref for c in platform.changes("m", since=since)] == ["3"]
    (row,) = platform.prediction_log("m")
    assert (row.version, row.asset_id, row.label, row.outcome, row.latency_ms) == ("3", "17", True, False, None)
    assert [v.version for v in platform.replay("m", versions=["2"]).versions] == ["2"]
    done = platform.rollback("m", target_version="2", reason="", rolled_back_by="", idempotency_key="k")
    state = {"serving_version": done.serving_version, "server_version": done.server_version}
    assert handlers._serves("2", state)


def test_a_change_whose_answer_cannot_be_read_may_have_happened() -> None:
    platform = HttpPlatform("http://platform", transport=httpx.MockTransport(lambda _: httpx.Response(200, json={"model": "m"})))
    with pytest.raises(Unknown, match="servingVersion"):
        platform.rollback("m", target_version="2", reason="", rolled_back_by="", idempotency_key="k")


@pytest.mark.parametrize("body", [b"[" * 100_000, b"1" * 10_000, b'{"model": "m", "servingVersion": ' + b"9" * 5000 + b"}", b'"text"'])
def test_json_that_python_itself_gives_up_on_is_refused(body: bytes) -> None:
    platform = HttpPlatform("http://platform", transport=httpx.MockTransport(lambda _: httpx.Response(200, content=body)))
    with pytest.raises(Refused, match="not the runbook's shape"):
        platform.status("m")
