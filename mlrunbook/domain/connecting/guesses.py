"""A guess with its reason and how sure it is. What could be two things is open: a person says which, never the name that came first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mlrunbook.domain.policy.connections import UNDECIDED

OPEN = UNDECIDED


class Sure(StrEnum):
    """`OPEN`: a person must say."""

    SURE = "sure"
    LIKELY = "likely"
    OPEN = "open"


@dataclass(frozen=True)
class Guess:
    """`value` None: nothing like it is there, or it is open. `choices`: what it could be."""

    value: str | None
    reason: str
    sure: Sure
    choices: tuple[str, ...] = ()

    @property
    def undecided(self) -> bool:
        return self.sure is Sure.OPEN and bool(self.choices)


def sure(value: str, reason: str) -> Guess:
    return Guess(value, reason, Sure.SURE)


def likely(value: str, reason: str) -> Guess:
    return Guess(value, reason, Sure.LIKELY)


def nothing(reason: str) -> Guess:
    """It is not there, which may be all right."""
    return Guess(None, reason, Sure.SURE)


def undecided(choices: Sequence[str], reason: str) -> Guess:
    return Guess(None, reason, Sure.OPEN, tuple(choices))


_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def words(name: str) -> tuple[str, ...]:
    """The words of a name, however a team writes names.

    >>> words("predictionTs"), words("PREDICTION_TS"), words("churn-model.v2"), words("inferenceID")
    (('prediction', 'ts'), ('prediction', 'ts'), ('churn', 'model', 'v2'), ('inference', 'id'))
    """
    return tuple(w.lower() for part in re.split(r"[^A-Za-z0-9]+", name) for w in _HUMP.split(part) if w)


def snake(name: str) -> str:
    return "_".join(words(name))


# Words that say nothing about which model it is.
_EVERYWHERE = "model models ml server serving service api prod production staging prediction predictions predictor inference deploy"
COMMON = frozenset(_EVERYWHERE.split())


def resemblance(name: str, model: str) -> float:
    """How much of the model's own words stand in `name`: 1 where they are the same words, 0 where none is.

    >>> resemblance("churn-server", "churn_model"), resemblance("fraud-server", "churn"), resemblance("churn-eu", "churn")
    (1.0, 0.0, 0.9)
    """
    ours = [w for w in words(model) if w not in COMMON] or list(words(model))
    theirs = [w for w in words(name) if w not in COMMON] or list(words(name))
    if not ours or not theirs:
        return 0.0
    shared = sum(w in theirs or "".join(ours) in theirs for w in ours) / len(ours)
    more = sum(w not in ours and w != "".join(ours) for w in theirs)
    return round(max(shared - 0.1 * min(more, 3), 0.0), 2) if shared else 0.0


def most_alike(names: Iterable[str], model: str, *, at_least: float = 0.5) -> tuple[str, ...]:
    """The names that resemble the model's most, all of them where they do so equally."""
    scored = [(resemblance(name, model), name) for name in dict.fromkeys(names)]
    best = max((score for score, _ in scored), default=0.0)
    return tuple(name for score, name in scored if score == best and score >= at_least)
