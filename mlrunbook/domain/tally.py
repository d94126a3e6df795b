"""Tallies: what is counted over predictions with a known outcome. Parts of a window add up, and figures follow from the sums.

A task is what a model answers; `binary` asks whether an asset fails. A new task needs a tally in `TASKS` and rules for its metrics in
policy (`severity.drops.metrics`): windows, blocks of time and segments carry any tally, and `performance.grade_drop` judges it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import PlainSerializer, PlainValidator, TypeAdapter

BINARY = "binary"


@dataclass(frozen=True)
class Tally(ABC):
    """A frozen dataclass of numbers, each of them a sum over rows; without rows all are 0, which are the defaults.

    `metrics`: what policy calls each metric, and what people call it; a name means the same in every task. A metric is a ratio of two
    sums (`ratio`); a tally whose metric is none overrides `figure` and `score`.
    """

    task: ClassVar[str]
    metrics: ClassVar[Mapping[str, str]]
    case_words: ClassVar[str] = "known outcomes"

    @property
    @abstractmethod
    def n(self) -> int:
        """Rows with a known outcome."""

    @abstractmethod
    def ratio(self, metric: str) -> tuple[float, float]:
        """The sums whose ratio the metric is."""

    @property
    def cases(self) -> int:
        """How much evidence there is, as `case_words` calls it and `min_positives` of the policy asks for."""
        return self.n

    @property
    def seen(self) -> str:
        """How much was counted, in words."""
        return f"{self.n} outcomes"

    @property
    def lacks(self) -> str:
        """What is missing where a metric has no figure, in words."""
        return f"nothing to measure in {self.n} known outcomes"

    def __add__(self, other: Self) -> Self:
        """Both together: `sum(tallies, Confusion())`."""
        return type(self)(*(a + b for a, b in zip(self.values, other.values, strict=True)))

    @property
    def values(self) -> tuple[Any, ...]:
        """The sums, in the order of the fields."""
        return tuple(getattr(self, f.name) for f in fields(self))

    def figure(self, metric: str) -> float | None:
        """None, never 0, where it is undefined."""
        above, below = self.ratio(metric)
        return above / below if below else None

    @classmethod
    def shown(cls, figure: float) -> str:
        """For people: an error has the unit of what is predicted, and may be of any size."""
        return f"{figure:.2f}" if 0.1 <= abs(figure) < 100 or not figure else f"{figure:.3g}" if abs(figure) < 0.1 else f"{figure:.0f}"

    def score(self, metric: str, whole: Self) -> tuple[float, float]:
        """What this block adds to the figure of `whole`, to first order: S and D, where the sums over blocks give (figure of the blocks)
        - (figure of `whole`) = S / D. The standard error comes from these (`block_errors`)."""
        above, below = self.ratio(metric)
        return above - (whole.figure(metric) or 0.0) * below, below


@dataclass(frozen=True)
class Confusion(Tally):
    """Labelled predictions by outcome. Ratios without a denominator are None, never 0."""

    task: ClassVar[str] = BINARY
    metrics: ClassVar[Mapping[str, str]] = {
        "f1": "F1",
        "precision": "precision",
        "recall": "recall",
        "false_positive_rate": "the false-positive rate",
    }
    case_words: ClassVar[str] = "known failures"

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def n(self) -> int:
        return self.tp + self.fp + self.fn + self.tn

    @property
    def positives(self) -> int:
        """Assets that truly failed."""
        return self.tp + self.fn

    @property
    def precision(self) -> float | None:
        return self.figure("precision")

    @property
    def recall(self) -> float | None:
        return self.figure("recall")

    @property
    def f1(self) -> float | None:
        """2TP / (2TP + FP + FN)."""
        return self.figure("f1")

    @property
    def cases(self) -> int:
        return self.positives

    @property
    def seen(self) -> str:
        return f"{self.positives} failures in {self.n} outcomes"

    @property
    def lacks(self) -> str:
        return f"no failure known or predicted in {self.n} labelled predictions"

    @classmethod
    def shown(cls, figure: float) -> str:
        return f"{figure:.2f}"

    def ratio(self, metric: str) -> tuple[float, float]:
        match metric:
            case "f1":
                return 2 * self.tp, 2 * self.tp + self.fp + self.fn
            case "precision":
                return self.tp, self.tp + self.fp
            case "recall":
                return self.tp, self.tp + self.fn
            case "false_positive_rate":
                return self.fp, self.fp + self.tn
            case _:
                raise KeyError(metric)


TASKS: dict[str, type[Tally]] = {BINARY: Confusion}


def metric_names() -> list[str]:
    """What a rule of the policy may be about."""
    return list(dict.fromkeys(name for kind in TASKS.values() for name in kind.metrics))


def as_binary(tally: Tally) -> Confusion:
    """The counts that questions about failures and alarms are asked of: whether nearly all are missed, whether groups are served alike.
    Another task has no answer to them: without a count, all of them stay silent."""
    return tally if isinstance(tally, Confusion) else Confusion()


def all_binary(tallies: Mapping[str, Tally]) -> dict[str, Confusion]:
    """`as_binary` by name; what is of another task is left out."""
    return {name: tally for name, tally in tallies.items() if isinstance(tally, Confusion)}


def total(tallies: Iterable[Tally]) -> Tally | None:
    """All together, of one task; None for none."""
    all_ = list(tallies)
    return sum(all_[1:], all_[0]) if all_ else None


# --- rows ---------------------------------------------------------------------------------------------------------------------

_adapter = cache(TypeAdapter[Any])


def _from_row(given: Any) -> Tally:
    """A row of a version that knew one task alone does not name it."""
    if isinstance(given, Tally):
        return given
    if not isinstance(given, Mapping):
        raise ValueError("a tally is an object with its counts")
    task = given.get("task", BINARY)
    if task not in TASKS:
        raise ValueError(f"the task {task!r} is not known here, only {', '.join(TASKS)}")
    read: Tally = _adapter(TASKS[task]).validate_python({key: value for key, value in given.items() if key != "task"})
    return read


def _to_row(tally: Tally) -> dict[str, Any]:
    """An earlier version reads the binary ones."""
    values = {f.name: getattr(tally, f.name) for f in fields(tally)}
    return values if tally.task == BINARY else {"task": tally.task, **values}


AnyTally = Annotated[Tally, PlainValidator(_from_row), PlainSerializer(_to_row)]
