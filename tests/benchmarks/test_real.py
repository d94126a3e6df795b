"""The benchmark on real tables: a described table becomes streams in which nothing changes, and a bad description says what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks.real.causes import figures, measure_causes
from benchmarks.real.causes import missed as missed_of
from benchmarks.real.injected import KINDS
from benchmarks.real.main import main
from benchmarks.real.measure import Size, measure
from benchmarks.real.streams import Pool, fallen, rarer, replaced_share
from benchmarks.real.tables import BadTable, Described, load

DESCRIBED = {"table": "even.csv", "time": "at", "label": "failed", "score": "score", "threshold": 0.5, "baseline_looks": 60}


def described(folder: Path, *, rows: int = 12_000, assets: int = 0, **changes: object) -> Path:
    rng = np.random.default_rng(1)
    failed = rng.random(rows) < 0.2
    score = np.where(failed, rng.random(rows) < 0.8, rng.random(rows) < 0.05) * 1.0
    at = pd.date_range("2026-01-01", periods=rows // max(assets, 1), freq="15min")
    table = pd.DataFrame({"at": np.tile(at, max(assets, 1)), "failed": failed.astype(int), "score": score, "load": rng.normal(size=rows)})
    if assets:
        table["pump"] = np.repeat(np.arange(assets), rows // assets)
    table["word"] = "high"
    table.to_csv(folder / "even.csv", index=False)
    (folder / "even.yaml").write_text(yaml.safe_dump({**DESCRIBED, **changes}))
    return folder / "even.yaml"


@pytest.mark.parametrize("assets", [0, 4])
def test_a_stream_holds_what_the_log_holds(tmp_path: Path, assets: int) -> None:
    pool = Pool.of(load(described(tmp_path, assets=assets, **({"asset": "pump"} if assets else {}))))
    stream = pool.draw(np.random.default_rng(2), 30)
    rows, counts = stream.rows(30), stream.counts.total()
    assert stream.counts.tp.shape == (max(assets, 1), 30)
    assert len(rows) == counts.n
    assert counts.tp == (pool.log.flag & pool.log.outcome)[rows].sum()
    assert counts.n == pytest.approx(30 * pool.per_look, rel=0.05)


def test_a_fall_is_as_large_as_asked_and_rarer_failures_leave_recall_alone(tmp_path: Path) -> None:
    pool, rng = Pool.of(load(described(tmp_path))), np.random.default_rng(3)
    counts, total = pool.draw(rng, 2000).counts.total(axis=0), pool.all
    worse = fallen(rng, counts, replaced_share(total, 0.2), float((total.tp + total.fp) / total.n)).total()
    assert worse.f1 / counts.total().f1 == pytest.approx(0.8, abs=0.02)
    fewer = rarer(rng, counts, 1 / 3).total()
    assert fewer.positives == pytest.approx(counts.total().positives / 3, rel=0.05)
    assert fewer.tp / fewer.positives == pytest.approx(counts.total().tp / counts.total().positives, abs=0.02)


def test_an_even_table_is_not_called_and_its_falls_are(tmp_path: Path) -> None:
    result = measure(Pool.of(load(described(tmp_path))), Size(windows=15, models=8, by_row=0, evidently=0, drift=0), seed=1)
    assert max(result.windows["ours"].values()) <= 0.05
    assert result.found["ours"][5000] > 0.9
    assert result.missed["20-50%"] < 0.3
    assert result.missed_refused < 0.1
    assert 0.5 < result.design_effect < 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": "broken"}, "no column broken"),
        ({"table": "none.csv"}, "no file"),
        ({"threshold": None}, "threshold"),
        ({"time": None}, "every"),
        ({"block": "3d"}, "week"),
        ({"block": "often"}, "block"),
        ({"label": "load"}, "`label`: load holds .*positive:"),
        ({"positive": "broken"}, "`positive`: no row has the failed 'broken'"),
        ({"block": "4000d"}, "blocks"),
        ({"time": "load"}, "`time`: load holds numbers"),
        ({"colour": "blue"}, "no key `colour`"),
        ({"train": 2}, "`train`: .* less than 1"),
        ({"score": "word"}, "`score`: word must hold numbers, found 'high'"),
        ({"time": "word"}, "`time`: word holds what is no time"),
        ({"outcome_delay": "soon"}, "`outcome_delay`: 'soon'"),
        ({"score": None, "threshold": None, "train": 0.001}, "train|tune"),
        ({"score": None, "threshold": None, "features": []}, "features"),
    ],
)
def test_a_bad_description_says_what_is_wrong(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(BadTable, match=words):
        Pool.of(load(described(tmp_path, rows=2000, **changes)))


@pytest.mark.parametrize("content", ["- a\n- b", "table: [", "", "just text"])
def test_a_file_that_is_no_description_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "odd.yaml").write_text(content)
    with pytest.raises(BadTable, match=r"odd\.yaml"):
        load(tmp_path / "odd.yaml")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_tables_of_other_shapes_are_read_as_the_same_log(tmp_path: Path, kind: str) -> None:
    """Text labels, gaps, rows in any order, several at the same time, times in milliseconds, an asset without a name."""
    usual = load(described(tmp_path, rows=6000, assets=3, asset="pump"))
    table = pd.read_csv(tmp_path / "even.csv", parse_dates=["at"])
    table["failed"] = np.where(table["failed"] == 1, "Yes", "no")
    table["at"] = table["at"].astype("datetime64[ms]").astype("int64")
    table["pump"] = table["pump"].map({0: "a", 1: "b", 2: None})
    table.loc[table.index[:5], "load"] = None
    unknown = table.iloc[:7].assign(failed=None)
    mixed = pd.concat([table, unknown]).sample(frac=1, random_state=3)
    mixed.to_parquet(tmp_path / "even.parquet") if kind == "parquet" else mixed.to_csv(tmp_path / "even.csv", index=False)
    (tmp_path / "even.yaml").write_text(yaml.safe_dump({**DESCRIBED, "asset": "pump", "table": f"even.{kind}"}))
    odd = load(tmp_path / "even.yaml")
    assert odd.left_out == "7 rows without failed"
    assert odd.asset is not None
    assert set(odd.asset) == {0, 1, 2}
    one, other = Pool.of(usual).all, Pool.of(odd).all
    assert [one.tp, one.fp, one.fn, one.tn] == [other.tp, other.fp, other.fn, other.tn]


def test_text_and_truth_values_are_features_too(tmp_path: Path) -> None:
    described(tmp_path, rows=6000)
    table = pd.read_csv(tmp_path / "even.csv").drop(columns="score")
    table["word"], table["hot"] = np.where(table["failed"] == 1, "high", "low"), table["load"] > 0
    table.to_csv(tmp_path / "even.csv", index=False)
    fitted = {"score": None, "threshold": None, "features": ["word", "hot", "load"]}
    (tmp_path / "even.yaml").write_text(yaml.safe_dump({**DESCRIBED, **fitted}))
    log = load(tmp_path / "even.yaml")
    assert (log.flag == log.outcome).all()


def test_a_folder_without_a_description_ends_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 2
    assert "NAME.yaml" in capsys.readouterr().err


def test_what_is_injected_is_answered_with_the_right_path(tmp_path: Path) -> None:
    file, rng, n = described(tmp_path), np.random.default_rng(4), 9000
    load = rng.normal(size=n)
    table = pd.DataFrame({"torque": 40 + 10 * load + rng.normal(size=n), "wear": rng.uniform(0, 200, n), "heat": load + rng.normal(size=n)})
    risk = 1 / (1 + np.exp(-((table["torque"] - 45) / 3 + (table["wear"] - 100) / 25)))
    table = table.assign(failed=(rng.random(n) < risk).astype(int), at=pd.date_range("2026-01-01", periods=n, freq="15min"))
    asked = [kind for kind in KINDS if kind.name in ("concept drift", "threshold low", "x10", "swapped", "of any row", "text", "nothing")]
    found = measure_causes(load_description(file), table, seeds=1, kinds=asked)
    assert sum(tally.calls for tally in found.values()) >= 8
    assert {name: tally.wrong for name, tally in found.items() if tally.wrong} == {}
    assert figures(found)["right_path"] == 1
    assert missed_of({"pumps": figures(found)}) == []


def load_description(file: Path) -> Described:
    return Described.model_validate({"table": file.with_suffix(".csv").name, "time": "at", "label": "failed"})
