"""Values that are possible one by one, and are not of this row: they show beside the other columns, what the asset sent before,
and the outcomes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pytest

from mlrunbook.domain.actions import Path
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.investigation.inputs.faults import InputFault, Kind, input_faults
from mlrunbook.domain.observed import Prediction
from tests.domain.investigation.worlds import START, Looked, looked_into

N = 3000
Spoil = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Mislead = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
DIALS = ("a", "b", "c", "d")
WEIGHTS = np.array([1.5, -0.8, 0.4, 0.0])


def dials(n: int, rng: np.random.Generator) -> np.ndarray:
    """Four dials from 0 to 10 that know nothing of each other."""
    return rng.uniform(0, 10, (n, 4)).round(3)


def machines(n: int, rng: np.random.Generator) -> np.ndarray:
    """Readings of one load, each with its own noise."""
    load = rng.normal(size=(n, 1))
    return (5 + 2 * (load * np.array([1.0, 0.9, -0.8, 0.7]) + 0.5 * rng.normal(size=(n, 4)))).round(3)


def wandering(n: int, rng: np.random.Generator) -> np.ndarray:
    """Forty assets whose readings each stay near what they were, and know nothing of each other."""
    values, assets = rng.normal(size=(n, 4)), 40
    for i in range(assets, n):
        values[i] = 0.9 * values[i - assets] + 0.44 * values[i]
    return (5 + 2 * values).round(3)


FLEETS = {"dials": dials, "machines": machines, "wandering": wandering}


def log(fleet: str, n: int, first: int, seed: int, spoil: Spoil | None = None, mislead: Mislead | None = None) -> list[Prediction]:
    """`mislead` gives the chance to fail from the readings and what it was."""
    rng = np.random.default_rng(seed)
    true = FLEETS[fleet](n, rng)
    risk = 1 / (1 + np.exp(-(true - 5) @ WEIGHTS))
    chance = mislead(true, risk, rng) if mislead else risk
    outcome = rng.random(n) < chance
    seen = spoil(true.copy(), rng) if spoil else true
    score = np.clip(1 / (1 + np.exp(-(seen - 5) @ WEIGHTS)), 0.001, 0.999)
    return [
        Prediction(
            first + i + 1, START + timedelta(seconds=3.6 * (first + i)), f"pump_{i % 40}", "LM"[int(rng.integers(2))],
            dict(zip(DIALS, map(float, seen[i]), strict=True)), float(score[i]), bool(score[i] >= 0.5), "v2.0.0", 0.5, 4.0,
            bool(outcome[i]),
        )
        for i in range(n)
    ]  # fmt: skip


def of_any_row(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x[:, 0] = rng.permutation(x[:, 0])
    return x


def slipped(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
    x[:, 0] = np.roll(x[:, 0], 7)
    return x


def turned(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
    x[:, 0] = 10 - x[:, 0]
    return x


def swapped(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
    x[:, [0, 1]] = x[:, [1, 0]]
    return x


def moved_by_a_column(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return np.roll(x, 1, axis=1)


def halved(change: Spoil) -> Spoil:
    def newest(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        half = len(x) // 2
        x[half:] = change(x[half:].copy(), rng)
        return x

    return newest


SPOILT: dict[str, Spoil] = {
    "of any row": of_any_row, "slipped by rows": slipped, "turned": turned, "swapped": swapped, "moved by a column": moved_by_a_column,
}  # fmt: skip
BEFORE = {fleet: log(fleet, N, 0, 1) for fleet in FLEETS}


def looked(fleet: str, spoil: Spoil | None = None, mislead: Mislead | None = None, seed: int = 2) -> Looked:
    return looked_into(BEFORE[fleet], log(fleet, N, N, seed, spoil, mislead))


def faults(fleet: str, spoil: Spoil | None = None, seed: int = 2) -> tuple[InputFault, ...]:
    return input_faults(BEFORE[fleet], log(fleet, N, N, seed, spoil))


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.parametrize("fleet", FLEETS)
def test_a_column_that_holds_something_else_is_named_and_never_learned(fleet: str, name: str) -> None:
    seen = looked(fleet, SPOILT[name])
    assert set(DIALS) & {word for fault in faults(fleet, SPOILT[name]) for word in fault.features}
    assert seen.facts.degraded
    assert (seen.diagnosis.top.cause, seen.diagnosis.path) == (Cause.NULL_OR_BROKEN_FEATURE, None)


@pytest.mark.parametrize(("fleet", "name"), [(f, n) for f in FLEETS for n in SPOILT if (f, n) != ("wandering", "slipped by rows")])
def test_also_where_it_set_in_half_way(fleet: str, name: str) -> None:
    """Not where each asset goes on with the series of another: that is one, and only half of the outcomes could tell."""
    assert looked(fleet, halved(SPOILT[name])).diagnosis.path is not Path.RETRAIN


@pytest.mark.parametrize("seed", range(3, 7))
@pytest.mark.parametrize("fleet", FLEETS)
def test_columns_that_go_together_as_before_have_no_fault(fleet: str, seed: int) -> None:
    assert faults(fleet, seed=seed) == ()


def at_random(_: np.ndarray, risk: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(len(risk)) < 0.4, 1 - risk, risk)


def where_one_is_high(x: np.ndarray, risk: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return np.where(x[:, 0] > 6, 1 - risk, risk)


def at_another_limit(x: np.ndarray, _: np.ndarray, __: np.random.Generator) -> np.ndarray:
    return 1 / (1 + np.exp(-((x - 5) @ WEIGHTS - 5)))


@pytest.mark.parametrize("mislead", [at_random, where_one_is_high, at_another_limit])
@pytest.mark.parametrize("fleet", FLEETS)
def test_the_same_readings_with_other_outcomes_are_still_learned_anew(fleet: str, mislead: Mislead) -> None:
    seen = looked(fleet, mislead=mislead)
    assert seen.facts.inputs.faults == ()
    assert (seen.diagnosis.top.cause, seen.diagnosis.path) == (Cause.CONCEPT_DRIFT, Path.RETRAIN)


def test_a_machine_that_works_harder_moves_its_readings_together_and_nothing_is_broken() -> None:
    harder = log("machines", N, N, 2, lambda x, _: x + np.array([1.0, 0.9, -0.8, 0.7]))
    assert not [fault for fault in input_faults(BEFORE["machines"], harder) if fault.kind in (Kind.APART, Kind.OTHER_MEANING)]


def standing_still(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
    x[:, 0] = np.tile(x[:40, 0], len(x) // 40)
    return x


SAID: dict[str, tuple[Spoil, Kind]] = {
    "stands still": (standing_still, Kind.REPEATED),
    "rounded": (lambda x, _: np.column_stack([np.round(x[:, 0] / 4) * 4, x[:, 1:]]), Kind.COARSE),
    "cut off": (lambda x, _: np.column_stack([np.minimum(x[:, 0], 6.0), x[:, 1:]]), Kind.CUT_OFF),
}


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("fleet", FLEETS)
def test_a_column_that_stands_still_or_lost_its_values_is_named(fleet: str, name: str) -> None:
    spoil, kind = SAID[name]
    assert kind in {fault.kind for fault in faults(fleet, spoil) if "a" in fault.features}
