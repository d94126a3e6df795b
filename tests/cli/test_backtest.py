"""`mlrunbook backtest` on made-up logs, from a folder with nothing running: what is called, when and why, and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from mlrunbook.adapters.history import mapping, source, staging
from mlrunbook.cli.main import app
from mlrunbook.domain.errors import Invalid
from tests.cli.backtest_logs import BEGIN, Files, collapsed, days, healthy

Run = Callable[..., "Done"]


@dataclass(frozen=True)
class Done:
    result: Result
    out: Path

    @property
    def data(self) -> dict[str, Any]:
        assert self.result.exit_code == 0, self.result.output
        found: dict[str, Any] = json.loads((self.out / "report.json").read_text())
        return found

    @property
    def html(self) -> str:
        return (self.out / "report.html").read_text()

    @property
    def refusal(self) -> str:
        """One line, exit code 2, no report, no traceback."""
        assert self.result.exit_code == 2, self.result.output
        lines = [line for line in self.result.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert "Traceback" not in self.result.output
        assert not (self.out / "report.html").exists()
        return lines[0]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    clean = {key: None for key in os.environ if key.startswith(("MLRUNBOOK_", "PREFECT_"))}

    def backtest(*args: object, out: str = "out") -> Done:
        told = ["backtest", *map(str, args), "--out", str(tmp_path / out)]
        env = {**clean, "MLRUNBOOK_DATA_DIR": str(tmp_path), "COLUMNS": "80"}
        return Done(CliRunner().invoke(app, told, env=env, prog_name="mlrunbook"), tmp_path / out)

    return backtest


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


# --- what is called -------------------------------------------------------------------------------------------------------------


def test_plain_alarms_of_an_unchanged_model_are_not_called(run: Run, files: Files) -> None:
    found = run(files.csv(healthy(a_day=60))).data
    assert found["summary"]["plain_alarms"] > 3
    assert found["calls"] == []
    assert found["missed"] == []
    assert {alarm["verdict"] for alarm in found["alarms"]} <= {"chance", "unproven", "no_baseline"}


def test_a_collapse_is_called_with_its_time_and_severity_and_is_over_when_it_is(run: Run, files: Files) -> None:
    found = run(files.csv(collapsed(healthy(), 70, 85))).data
    assert len(found["calls"]) == 1
    (call,) = found["calls"]
    began, over = BEGIN + timedelta(days=70), BEGIN + timedelta(days=85)
    assert abs(at(call["began"]) - began) <= timedelta(days=2)
    assert began < at(call["at"]) <= began + timedelta(days=5)
    assert over <= at(call["over"]) <= over + timedelta(days=8)
    assert call["severity"] == "high"
    assert call["f1_now"] < 0.6 * call["f1_before"]
    assert any(alarm["verdict"] == "real" and alarm["call"] == 1 for alarm in found["alarms"])
    assert any("paged at once" in words for words in call["explained"]["asked"])


def test_outcomes_that_come_a_week_later_are_judged_only_when_they_are_mature(run: Run, files: Files) -> None:
    frame = collapsed(healthy(), 70, 85)
    late = frame.assign(outcome_time=(pd.to_datetime(frame["time"]) + pd.Timedelta(days=7)).dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    by_column, by_flag = run(files.csv(late)).data, run(files.csv(frame, "b.csv"), "--outcome-delay", "7d", out="b").data
    at_once = run(files.csv(frame, "c.csv"), out="c").data
    for found in (by_column, by_flag):
        assert found["facts"]["mature_age_s"] == 7 * 86_400
        assert at(found["calls"][0]["at"]) - at(at_once["calls"][0]["at"]) == timedelta(days=7)
        assert found["calls"][0]["began"] == at_once["calls"][0]["began"]


def test_failures_that_are_known_first_do_not_make_the_newest_days_look_different(run: Run, files: Files) -> None:
    """Known at once where an asset fails, after a week where it does not: the newest days hold failures alone."""
    frame = healthy()
    delay = np.where(frame["failed"] == 1, 3600, 7 * 86_400)
    known = pd.to_datetime(frame["time"]) + pd.to_timedelta(delay, unit="s")
    young = known > known.max() - pd.Timedelta(days=6)
    frame = frame.assign(outcome_time=known.dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    frame["failed"] = frame["failed"].where(~young)
    frame["outcome_time"] = frame["outcome_time"].where(~young)
    found = run(files.csv(frame)).data
    assert found["facts"]["mature_age_s"] == 7 * 86_400
    assert found["calls"] == []
    assert abs(found["facts"]["failures"] / found["facts"]["judged"] - 0.10) < 0.01


def test_a_threshold_that_slipped_unreported_is_answered_with_path_d(run: Run, files: Files) -> None:
    frame = healthy()
    slipped = days(frame, 90, 120)
    frame["threshold"] = np.where(slipped, 0.9, frame["threshold"])
    found = run(files.csv(frame)).data
    (call,) = found["calls"]
    assert call["explained"]["path"] == "threshold"
    assert "0.5" in call["explained"]["advice"]
    assert any("to approve" in words and "threshold" in words for words in call["explained"]["asked"])


def test_a_unit_error_is_named_and_never_retrained_on(run: Run, files: Files) -> None:
    frame = collapsed(healthy(), 80, 120)
    frame.loc[days(frame, 80, 120), "torque"] *= 10
    (call,) = run(files.csv(frame)).data["calls"]
    assert "torque" in call["explained"]["sentence"]
    assert call["explained"]["path"] != "retrain"


def test_a_bad_release_is_judged_against_the_version_before(run: Run, files: Files) -> None:
    frame = collapsed(healthy(), 80, 120)
    frame["model_version"] = np.where(days(frame, 80, 120), "v2", "v1")
    found = run(files.csv(frame)).data
    (call,) = found["calls"]
    assert call["version"] == "v2"
    assert call["baseline"].startswith("v1")
    assert at(call["at"]) < BEGIN + timedelta(days=85)


def test_a_healthy_release_gets_a_baseline_of_its_own(run: Run, files: Files) -> None:
    frame = healthy(160)
    frame["model_version"] = np.where(days(frame, 60, 160), "v2", "v1")
    found = run(files.csv(frame)).data
    assert found["calls"] == []
    assert {(b["version"], b["of_version"]) for b in found["baselines"]} == {("v1", "v1"), ("v1", "v2"), ("v2", "v2")}


def test_a_log_that_is_too_short_to_prove_anything_says_so(run: Run, files: Files) -> None:
    done = run(files.csv(healthy(10, a_day=20)))
    found = done.data
    assert found["calls"] == []
    assert found["unjudged"]
    assert "Not judged" in done.result.stdout


def test_the_policy_of_the_model_decides_and_not_that_of_another(run: Run, files: Files, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    own = "severity: {drops: {metrics: [{name: f1, worse: lower, medium: 0.95}]}}"
    policy.write_text(f"models:\n  pumps: {{{own}}}\n")
    log = files.csv(collapsed(healthy(), 70, 85))
    assert run(log, "--policy", policy, "--model", "pumps").data["calls"] == []
    assert len(run(log, "--policy", policy, "--model", "fans", out="b").data["calls"]) == 1


def test_the_suggested_section_is_a_policy(run: Run, files: Files, tmp_path: Path) -> None:
    found = run(files.csv(healthy(300, a_day=10)), "--model", "slow pumps 1".replace(" ", "_")).data
    policy = tmp_path / "policy.yaml"
    policy.write_text(found["suggestions"]["models"])
    checked = CliRunner().invoke(app, ["policy", "check", str(policy)])
    assert checked.exit_code == 0, checked.output
    assert "slow_pumps_1" in policy.read_text()


def test_outcomes_of_versions_too_many_to_judge_are_counted(run: Run, files: Files) -> None:
    frame = healthy(100)
    day = np.arange(len(frame)) // 200
    frame["model_version"] = np.where(day < 85, "v1", "try" + (day - 84).astype(str).astype(object))
    found = run(files.csv(frame)).data
    facts = found["facts"]
    assert facts["judged"] + facts["pending"] + 4 * 200 == len(frame)
    assert any("800 outcomes of 4 small versions" in note for note in found["notes"])


def test_a_fall_is_never_more_than_everything(run: Run, tmp_path: Path) -> None:
    sample = tmp_path / "sample.csv"
    CliRunner().invoke(app, ["backtest", "--sample", str(sample)])
    said = json.dumps(run(sample).data["calls"])
    assert max(int(share) for share in re.findall(r"(?:fell|rose) (\d+) %", said)) <= 100
    for low, high in re.findall(r"interval (\d+) % to (\d+) %", said):
        assert int(low) <= int(high)


@pytest.mark.parametrize("kind", ["row number", "row number downwards", "unsorted row number", "epoch", "second time"])
def test_a_column_that_counts_the_rows_is_no_cause(run: Run, files: Files, kind: str) -> None:
    frame = collapsed(healthy(), 70, 85)
    rows = np.arange(len(frame))
    frame["extra"] = {
        "row number": rows,
        "row number downwards": len(frame) - rows,
        "unsorted row number": rows,
        "epoch": pd.to_datetime(frame["time"]).astype("datetime64[s, UTC]").astype("int64"),
        "second time": frame["time"],
    }[kind]
    if kind == "unsorted row number":
        frame = frame.sample(frac=1, random_state=3)
    found = run(files.csv(frame)).data
    (call,) = found["calls"]
    assert "extra" not in call["explained"]["sentence"]
    assert "extra" not in {f["name"] for f in found["drift"]["features"]}
    assert kind == "second time" or any("extra" in note for note in found["notes"])


def test_one_model_of_several_is_judged_and_which_is_asked(run: Run, files: Files) -> None:
    pumps, fans = collapsed(healthy(), 70, 85).assign(model_name="pumps"), healthy(seed=9).assign(model_name="fans")
    log = files.csv(pd.concat([pumps, fans]))
    refusal = run(log).refusal
    for words in ("pumps", "fans", "--model", "--column model="):
        assert words in refusal
    assert "several models" in run(log, "--model", "valves", out="z").refusal
    alone = run(files.csv(pumps.drop(columns="model_name"), "alone.csv")).data
    found = run(log, "--model", "pumps", out="b").data
    assert found["facts"]["rows"] == len(pumps)
    assert [c["at"] for c in found["calls"]] == [c["at"] for c in alone["calls"]]
    assert run(log, "--model", "fans", out="c").data["calls"] == []
    assert run(log, "--column", "model=", "--column", "id=", out="d").data["facts"]["rows"] == 2 * len(pumps)


@pytest.mark.parametrize("name", ["2026-11 export (1).csv", "log[1]*.csv", "größe.csv", "-.csv", "a\x1b[31m<b>.csv"])
def test_the_name_of_any_file_makes_a_policy(run: Run, files: Files, tmp_path: Path, name: str) -> None:
    found = run(files.csv(healthy(200, a_day=20), name)).data
    assert found["suggestions"]["models"]
    policy = tmp_path / "policy.yaml"
    policy.write_text(found["suggestions"]["models"])
    checked = CliRunner().invoke(app, ["policy", "check", str(policy)])
    assert checked.exit_code == 0, checked.output


def test_nothing_is_suggested_from_a_handful_of_failures(run: Run, files: Files) -> None:
    found = run(files.csv(healthy(40).head(60))).data
    assert found["suggestions"]["models"] == ""


# --- bad rows -------------------------------------------------------------------------------------------------------------------

BAD_VALUES = {
    "the time cannot be read": ("time", "yesterday"),
    "the prediction is in the future": ("time", "2199-01-01T00:00:00Z"),
    "the score is no number": ("score", "high"),
    "the score is outside 0 to 1": ("score", "1.5"),
    "the threshold is no number from 0 to 1": ("threshold", "-0.1"),
    "the outcome is neither 0 nor 1": ("failed", "maybe"),
    "the outcome's time cannot be read": ("outcome_time", "soon"),
    "the outcome is older than its prediction": ("outcome_time", "2001-01-01T00:00:00Z"),
    "the outcome is in the future": ("outcome_time", "2199-01-01T00:00:00Z"),
    "the prediction id was used before": ("prediction_id", "1"),
}


def test_every_bad_row_is_counted_by_its_reason_in_terminal_page_and_json(run: Run, files: Files) -> None:
    frame = healthy(60).astype(object)
    frame["outcome_time"] = frame["time"]
    for k, (name, value) in enumerate(BAD_VALUES.values()):
        frame.loc[[100 * k + 50 + j for j in range(k + 1)], name] = value
    frame.loc[5000:5009, "failed"] = ""  # not known yet: no bad row
    log = files.csv(frame)
    done = run(log)
    found = done.data
    assert {b["reason"]: b["count"] for b in found["bad"]} == {reason: k + 1 for k, reason in enumerate(BAD_VALUES)}
    facts = found["facts"]
    assert facts["rows"] == len(frame) == found["summary"]["left_out"] + facts["judged"] + facts["pending"] + facts["late"]
    assert facts["pending"] >= 10
    for reason in BAD_VALUES:
        assert reason in " ".join(done.result.stdout.split())
        assert reason.replace("'", "&#39;") in done.html
    assert "row 51: yesterday" in found["bad"][0]["example"]


def test_lines_that_are_no_rows_are_counted_too(run: Run, files: Files) -> None:
    log = files.csv(healthy(60))
    lines = log.read_bytes().splitlines(keepends=True)
    lines[500:500] = [b"1,2,3\n", b"9,2025-01-05T00:00:00Z,a1,\xff\xfe,0.2,0.5,0,1,1\n"]
    log.write_bytes(b"".join(lines))
    found = run(log).data
    assert sum(b["count"] for b in found["bad"]) == 2
    assert found["facts"]["rows"] == 60 * 200 + 2


def test_the_first_bad_row_is_where_it_is_said_to_be_in_a_wide_log(run: Run, files: Files) -> None:
    """Read by two threads: which chunk comes first is chance."""
    frame = healthy().astype({"score": object})
    frame.loc[:40, "score"] = "bad"
    frame.loc[23_990, "prediction_id"] = 23_000
    for k in range(25):
        frame[f"sensor_{k}"] = np.random.default_rng(k).normal(size=len(frame))
    found = run(files.csv(frame)).data["bad"]
    assert [b["example"] for b in found] == ["row 1: bad", "row 23991: the first is row 23000"]


@pytest.mark.parametrize("reset", ["1990-01-01T00:00:00Z", "2000-01-01T00:00:00Z"])
def test_a_few_rows_of_a_clock_that_was_reset_do_not_stretch_the_log(run: Run, files: Files, reset: str) -> None:
    frame = collapsed(healthy(), 70, 85)
    usual = run(files.csv(frame)).data["calls"]
    frame.loc[[7, 9000, 20_000], "time"] = reset
    found = run(files.csv(frame), out="b").data
    assert [(b["reason"], b["count"]) for b in found["bad"]] == [("the time lies far from nearly all others", 3)]
    assert reset[:10] in found["bad"][0]["example"]
    assert [c["at"] for c in found["calls"]] == [c["at"] for c in usual]


def test_csv_and_parquet_say_the_same(run: Run, files: Files) -> None:
    frame = collapsed(healthy(), 70, 85)
    one, other = run(files.csv(frame)).data, run(files.parquet(frame), out="b").data
    for found in (one, other):
        del found["source"], found["model"], found["suggestions"]["models"]
    assert one == other


# --- the page -------------------------------------------------------------------------------------------------------------------


def test_page_and_json_agree_and_the_page_needs_nothing_else(run: Run, files: Files) -> None:
    done = run(files.csv(collapsed(healthy(), 70, 85)))
    found, html = done.data, done.html
    assert len(re.findall(r'<div class="call ', html)) == len(found["calls"]) == found["summary"]["calls"]
    assert f"<b>{found['summary']['plain_alarms']:,}</b>" in html
    assert found["calls"][0]["explained"]["sentence"][10:60] in html
    assert not re.search(r"<script|src=|url\(|@import|href=\"http", html)
    assert html.count("<svg") == 3


def test_hostile_names_and_values_are_only_text(run: Run, files: Files) -> None:
    evil = "<script>alert(1)</script>\"; DROP TABLE log; --'"
    frame = healthy(60).rename(columns={"torque": evil, "wear": "a\"b'c"})
    frame["asset_type"] = np.where(np.arange(len(frame)) % 2, "</svg><img src=x>", "'; DELETE FROM log; --")
    frame["model_version"] = "v1' OR '1'='1"
    done = run(files.csv(frame), "--column", "segment=asset_type")
    assert evil in {f["name"] for f in done.data["drift"]["features"]}
    assert "<script" not in done.html
    assert "<img" not in done.html
    assert "&lt;script&gt;" in done.html
    assert done.data["facts"]["rows"] == len(frame)


def test_a_report_is_whole_and_a_link_in_the_folder_is_not_followed(run: Run, files: Files, tmp_path: Path) -> None:
    log, out, elsewhere = files.csv(healthy(60)), tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    out.mkdir()
    (out / "report.html").symlink_to(elsewhere)
    done = run(log)
    assert done.html.startswith("<!DOCTYPE html>")
    assert elsewhere.read_text() == "precious"
    assert sorted(file.name for file in out.iterdir()) == ["report.html", "report.json"]


def test_a_report_that_cannot_be_written_leaves_no_part_of_one(run: Run, files: Files, tmp_path: Path) -> None:
    log = files.csv(healthy(60))
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    done = run(log)
    assert done.result.exit_code == 2
    assert "--out" in done.result.stderr
    assert [file.name for file in (tmp_path / "out").glob("*.new")] == []
    (tmp_path / "file").write_text("x")
    assert "--out" in run(log, out="file").result.stderr


def test_a_log_that_grows_while_it_is_read_is_refused(files: Files) -> None:
    log = files.csv(healthy(40))
    with staging.database() as db:
        opened = source.open_source(db, log)
        assert not opened.has_changed
        with log.open("a") as more:
            more.write("1,2025-01-01T00:00:00Z,a,L,0.2,0.5,0,1,1\n")
        with pytest.raises(Invalid, match="changed while it was read"):
            staging.stage(db, opened, mapping.settle(opened.types, mapping.given([], None, None, None)), 2e9, lambda _: None)


def test_a_disk_that_is_full_is_named(files: Files, tmp_path: Path) -> None:
    """In a process of its own, whose files may not grow."""
    log = files.csv(healthy(300, a_day=1000))
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)); from mlrunbook.cli.main import app; app()"
    told = [sys.executable, "-c", code, "backtest", str(log), "--out", str(tmp_path / "out")]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLRUNBOOK_", "PREFECT_"))}
    done = subprocess.run(told, capture_output=True, text=True, timeout=300, env={**clean, "TMPDIR": str(tmp_path)}, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "TMPDIR" in done.stderr
    assert list(tmp_path.glob("mlrunbook-backtest-*")) == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_leaves_nothing(files: Files, tmp_path: Path, how: signal.Signals) -> None:
    log = files.csv(healthy(300, a_day=2000))
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLRUNBOOK_", "PREFECT_"))}
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from mlrunbook.cli.main import app; app()"
    told = [sys.executable, "-c", code, "backtest", str(log), "--out", str(tmp_path / "out")]
    with subprocess.Popen(told, stderr=subprocess.PIPE, text=True, env={**clean, "TMPDIR": str(tmp_path)}, cwd=tmp_path) as running:
        assert running.stderr is not None
        assert running.stderr.readline().startswith("columns:")
        running.send_signal(how)
        said = running.stderr.read()
        assert running.wait(120) in (130, 143)
    assert "Traceback" not in said
    assert list(tmp_path.glob("mlrunbook-backtest-*")) == []
    assert not (tmp_path / "out").exists()


# --- what is refused ------------------------------------------------------------------------------------------------------------


def test_a_guess_that_may_be_two_columns_names_both_and_the_flag(run: Run, files: Files) -> None:
    frame = healthy(60).assign(actual=0)
    refusal = run(files.csv(frame)).refusal
    assert "'failed'" in refusal
    assert "'actual'" in refusal
    assert "--column outcome=" in refusal
    assert run(files.csv(frame), "--column", "outcome=failed", out="b").data["columns"]["outcome"] == "failed"


def test_the_guess_is_shown_and_a_mapping_file_says_the_same(run: Run, files: Files, tmp_path: Path) -> None:
    frame = healthy(60).rename(columns={"failed": "broke_down", "score": "how_likely", "time": "when"})
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("outcome: broke_down\nscore: how_likely\ntime: when\nthreshold: 0.5\nfeatures: [wear]\n")
    done = run(files.csv(frame.drop(columns="threshold")), "--mapping", mapping)
    assert done.data["columns"] == {
        "time": "when", "score": "how_likely", "outcome": "broke_down", "id": "prediction_id", "asset": "asset_id", "segment": "asset_type",
    }  # fmt: skip
    assert "id=prediction_id (guessed)" in done.result.stderr
    assert "time=when," in done.result.stderr


def _latin(files: Files) -> Path:
    path = files.csv(healthy(40).rename(columns={"wear": "verschleiß"}))
    path.write_bytes(path.read_text().encode("latin-1"))
    return path


def _written(name: str, content: bytes) -> Callable[[Files], Path]:
    def write(files: Files) -> Path:
        (files.folder / name).write_bytes(content)
        return files.folder / name

    return write


def _mostly(name: str, value: str) -> Callable[[Files], Path]:
    def write(files: Files) -> Path:
        frame = healthy(40).astype({name: object})
        frame.loc[frame.index % 3 > 0, name] = value
        return files.csv(frame)

    return write


REFUSED: dict[str, tuple[Callable[[Files], Path], str]] = {
    "no file": (lambda files: files.folder / "nowhere.csv", "there is no file"),
    "an empty file": (_written("log.csv", b""), "is empty"),
    "a header alone": (_written("log.csv", b"time,score,outcome\n"), "no row"),
    "a picture": (_written("log.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), "neither CSV nor Parquet"),
    "a broken Parquet file": (_written("log.parquet", b"PAR1" + b"x" * 100 + b"PAR1"), "cannot be read"),
    "a CSV that is called Parquet": (_written("log.parquet", b"time,score\n1,2\n"), "no Parquet file"),
    "text that is no table": (_written("log.csv", b"hello\nworld\n"), "one column"),
    "no outcome": (lambda files: files.csv(healthy(40).drop(columns="failed")), "--column outcome=NAME"),
    "no time": (lambda files: files.csv(healthy(40).drop(columns="time")), "--column time=NAME"),
    "no score": (lambda files: files.csv(healthy(40).drop(columns="score")), "--column score=NAME"),
    "not UTF-8": (_latin, "UTF-8"),
    "no outcome known": (lambda files: files.csv(healthy(40).assign(failed="")), "none of 8,000 rows has an outcome"),
    "failures alone": (lambda files: files.csv(healthy(40).assign(failed=1)), "write 0"),
    "scores in percent": (lambda files: files.csv(healthy(40).assign(score=healthy(40)["score"] * 100)), "by 100"),
    "scores with a sign": (lambda files: files.csv(healthy(40).assign(score=healthy(40)["score"].astype(str) + "%")), "decimal point"),
    "outcomes mostly in other words": (_mostly("failed", "running"), "1 or 0"),
    "one id for all": (lambda files: files.csv(healthy(40).assign(prediction_id=7)), "--column id="),
    "outcomes before their predictions": (lambda files: files.csv(healthy(40).assign(outcome_time="2001-01-01")), "swapped"),
    "one time for all": (lambda files: files.csv(healthy(40).assign(time="2025-01-01")), "--column time=NAME"),
    "a workbook": (_written("log.xlsx", b"PK\x03\x04" + b"x" * 100), "save the sheet as CSV"),
    "a packed CSV by another name": (_written("log.csv", b"\x1f\x8b" + b"x" * 100), ".csv.gz"),
    "ten thousand columns": (_written("log.csv", b",".join(b"c%d" % i for i in range(10_000)) + b"\n"), "at most 2,000"),
    "no failure": (lambda files: files.csv(healthy(40).assign(failed=0)), "no failure"),
    "times in another form": (lambda files: files.csv(healthy(40).assign(time="31/12/2025 noon")), "2026-01-31T12:00:00Z"),
    "a folder without Parquet": (lambda files: files.folder, "without a Parquet file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_replayed_is_refused_in_a_line_that_says_what_to_do(run: Run, files: Files, case: str) -> None:
    make, says = REFUSED[case]
    assert says in run(make(files)).refusal


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--column", "outcome"), "ROLE=NAME"),
        (("--column", "result=failed"), "ROLE is one of"),
        (("--column", "outcome=faild"), "did you mean 'failed'"),
        (("--column", "score=failed", "--column", "outcome=failed"), "one column says one thing"),
        (("--threshold", "7"), "between 0 and 1"),
        (("--outcome-delay", "soon"), "7d"),
        (("--mapping", "nowhere.yaml"), "there is no mapping file"),
        (("--policy", "nowhere.yaml"), "nowhere.yaml"),
        (("--model", "a b"), "--model"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(run: Run, files: Files, args: tuple[str, ...], says: str) -> None:
    assert says in run(files.csv(healthy(40)), *args).refusal


BAD_MAPPINGS = {
    "an alias bomb": ("a: &a [x, x]\n" + "".join(f"{b}: &{b} [{f'*{a}, ' * 9}*{a}]\n" for a, b in pairwise("abcdefghi")), "alias"),
    "nested without end": ("[" * 3000, "cannot be read as YAML"),
    "a key twice": ("time: time\ntime: wear\n", "given twice"),
    "a list": ("- time\n", "must be a section"),
    "a number for a name": ("time: 3\n", "time: must be text"),
    "a threshold out of range": ("threshold: 5\n", "threshold: must be less than 1"),
    "a truth for a threshold": ("threshold: true\n", "threshold: must be"),
    "an object": ("time: !!python/object/apply:os.system [id]\n", "cannot be read as YAML"),
    "no text": ("\0\0", "cannot be read as YAML"),
    "an unknown key": ("when: time\n", "known keys"),
    "the outcome as a feature": ("features: [failed]\n", "only known after"),
    "a delay of ages": ("outcome_delay: 99999999999d\n", "ten years"),
}


@pytest.mark.parametrize("case", BAD_MAPPINGS)
def test_a_mapping_that_cannot_be_meant_is_refused(run: Run, files: Files, tmp_path: Path, case: str) -> None:
    content, says = BAD_MAPPINGS[case]
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(content)
    assert says in run(files.csv(healthy(40)), "--mapping", mapping).refusal


def test_without_a_log_the_sample_is_named(run: Run) -> None:
    assert "--sample" in run().refusal


def test_whatever_type_a_parquet_column_has_it_says_the_same(run: Run, files: Files) -> None:
    frame = collapsed(healthy(100), 70, 80)
    usual = run(files.csv(frame)).data["calls"]
    at_ = pd.to_datetime(frame["time"])
    shapes = {
        "nanoseconds": frame.assign(time=at_.astype("datetime64[ns, UTC]")),
        "naive": frame.assign(time=at_.dt.tz_localize(None).astype("datetime64[ns]")),
        "milliseconds": frame.assign(time=at_.astype("datetime64[ms, UTC]")),
        "another zone": frame.assign(time=at_.dt.tz_convert("Asia/Tokyo")),
        "small numbers": frame.assign(
            failed=frame["failed"].astype("uint8"), score=frame["score"].astype("float32"), prediction_id=frame.index
        ),
        "truths": frame.assign(failed=frame["failed"] == 1),
        "categories": frame.assign(asset_type=frame["asset_type"].astype("category"), prediction_id=frame["prediction_id"].astype(str)),
        "nothing known": frame.assign(failed=frame["failed"].astype("Int8"), wear=None),
        "lists": frame.assign(embedding=[[0.1, 0.2]] * len(frame)),
    }
    for name, shape in shapes.items():
        shape.to_parquet(files.folder / f"{name}.parquet", index=False)
        calls = run(files.folder / f"{name}.parquet", out=name).data["calls"]
        assert [(c["at"], c["severity"]) for c in calls] == [(c["at"], c["severity"]) for c in usual], name


def test_other_shapes_of_the_same_log_say_the_same(run: Run, files: Files) -> None:
    """Epoch seconds and milliseconds, truths as words, no score but a label."""
    frame = collapsed(healthy(), 70, 85)
    usual = run(files.csv(frame)).data["calls"]
    seconds = pd.to_datetime(frame["time"]).astype("datetime64[s, UTC]").astype("int64")
    shapes = {
        "seconds": frame.assign(time=seconds),
        "milliseconds": frame.assign(time=seconds * 1000),
        "words": frame.assign(failed=frame["failed"].map({0: "False", 1: "TRUE"})),
        "floats": frame.assign(failed=frame["failed"].astype(float)),
        "label": frame.assign(flagged=frame["score"] >= 0.5).drop(columns=["score", "threshold"]),
        "failed or ok": frame.assign(failed=frame["failed"].map({0: "OK", 1: "Failed"})),
        "labels in words": frame.assign(prediction=np.where(frame["score"] >= 0.5, "failure", "normal")).drop(
            columns=["score", "threshold"]
        ),
        "camel case": frame.rename(
            columns={"time": "EventTime", "asset_id": "MachineID", "prediction_id": "requestId", "failed": "IsFailure"}
        ),
        "with the frame's index": frame.reset_index(),
    }
    for name, shape in shapes.items():
        calls = run(files.csv(shape, f"{name}.csv"), out=name).data["calls"]
        assert [(c["at"], c["severity"]) for c in calls] == [(c["at"], c["severity"]) for c in usual], name


@pytest.mark.parametrize(
    "how", [{"sep": ";"}, {"sep": "\t"}, {"sep": ";", "decimal": ","}, {"encoding": "utf-8-sig"}, {"compression": "gzip"}]
)
def test_a_csv_of_another_country_or_program_says_the_same(run: Run, files: Files, how: dict[str, Any]) -> None:
    frame = healthy()
    frame["threshold"] = np.where(days(frame, 90, 120), 0.9, frame["threshold"])
    usual = run(files.csv(frame)).data
    path = files.folder / ("log.csv.gz" if "compression" in how else "log.csv")
    frame.to_csv(path, index=False, **how)
    found = run(path).data
    for key in ("calls", "drift", "facts", "segments"):
        assert found[key] == usual[key]


def test_a_structure_is_neither_guessed_nor_taken_for_a_value(run: Run, files: Files) -> None:
    frame = healthy(60)
    frame["prediction"] = [{"score": score} for score in frame.pop("score")]
    frame.to_parquet(files.folder / "log.parquet", index=False)
    assert "--column score=NAME" in run(files.folder / "log.parquet").refusal
    assert "a column of its own" in run(files.folder / "log.parquet", "--column", "score=prediction").refusal


def test_the_sample_log_holds_a_unit_error_and_a_slipped_threshold_and_both_are_found(run: Run, tmp_path: Path) -> None:
    sample = tmp_path / "sample.csv"
    made = CliRunner().invoke(app, ["backtest", "--sample", str(sample)])
    assert made.exit_code == 0, made.output
    first, second = run(sample).data["calls"]
    assert "torque_nm" in first["explained"]["sentence"]
    assert first["explained"]["path"] is None
    assert second["explained"]["path"] == "threshold"
    again = CliRunner().invoke(app, ["backtest", "--sample", str(sample)])
    assert again.exit_code == 2
    assert "exists" in again.stderr
