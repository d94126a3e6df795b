"""Which models there are, whose they are, and what of the world belongs to each: the section `models` of the policy.

Pattern matching is that of shells with `*` and `?` alone; of several patterns that fit, the most specific one counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from itertools import combinations
from typing import Any

from mlrunbook.domain.errors import Refused
from mlrunbook.domain.policy.cluster import ClusterObjects
from mlrunbook.domain.policy.connections import PlatformParts
from mlrunbook.domain.policy.intake import MODEL_ID
from mlrunbook.domain.policy.patterns import is_pattern

_PATTERN = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9._*?-]{0,99}")


@dataclass(frozen=True)
class ModelRules:
    """One model, or all whose name fits a pattern.

    owner          the team that answers for it, in words for people; "" where nobody is named
    cluster        its objects in the cluster: of one model alone, so never under a pattern
    feature_views  the feature views that it reads and an incident of it may materialise; None: those of `features.views`
    severity       the keys of the section `severity` that are its own; all others are those of that section
    platform       what its platform is composed of; None: the REST platform alone
    """

    owner: str = ""
    cluster: ClusterObjects | None = None
    feature_views: tuple[str, ...] | None = None
    severity: dict[str, Any] | None = None
    platform: PlatformParts | None = None


class Known(StrEnum):
    """What is known of a model's name. `UNREACHABLE`: the registry did not answer, so every name is accepted (pages fail open)."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Standing:
    """What is known of one name; `hint` helps whoever used one that is unknown: "did you mean x?", or which models there are."""

    known: Known
    hint: str = ""

    @property
    def is_unknown(self) -> bool:
        return self.known is Known.UNKNOWN


def check_models(models: Mapping[str, ModelRules]) -> None:
    """Raises ValueError for a name that no model can have, objects under a pattern, and one Deployment that belongs to two models."""
    for name, rules in models.items():
        if not _PATTERN.fullmatch(name):
            raise ValueError(f"models.{name}: no model id or pattern: letters, digits, '.', '_', '-', '*' and '?', 100 at most")
        if is_pattern(name) and rules.cluster is not None:
            raise ValueError(f"models.{name}: cluster belongs to one model alone; name the model instead of a pattern")


def check_objects(objects: Mapping[str, ClusterObjects]) -> None:
    """Raises ValueError where two models share an object that an incident of either would change, or pods that isolating one cuts off."""
    seen: dict[tuple[str, str], str] = {}
    for (first, ours), (second, theirs) in combinations(objects.items(), 2):
        a, b = ours.pod_selector.items(), theirs.pod_selector.items()
        if a <= b or b <= a:
            raise ValueError(f"models.{second}: pod_selector selects pods of {first} too; isolating one would cut off the other")
    for model, mine in objects.items():
        kinds = {("Deployment", mine.scaled_deployment), ("Deployment", mine.restarted_deployment)}
        kinds |= {(kind, name) for kind, name in (("Service", mine.service), ("ConfigMap", mine.config_map)) if name is not None}
        for kind, name in sorted(kinds):
            if other := seen.get((kind, name)):
                raise ValueError(f"models.{model}: {kind} {name} belongs to {other} already; an incident of one would change the other")
        seen |= dict.fromkeys(kinds, model)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "did you mean x or y?", the closest names; else the known ones, if they are few; "" where there is nothing to say."""
    names = sorted({n for n in known if not is_pattern(n)})
    by_case = {n.casefold(): n for n in names}
    close = [by_case[c] for c in get_close_matches(name.casefold(), by_case, n=2, cutoff=0.6)]
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known models: {', '.join(names)}" if 0 < len(names) <= 6 else ""


def unknown_words(model: str, hint: str = "") -> str:
    """What is said about a name that neither the registry nor policy knows; whole, so that another sentence may follow.

    >>> unknown_words("chrun", "did you mean churn?")
    "no model 'chrun' is registered, and policy names none; did you mean churn?"
    """
    said = f"no model {model!r} is registered, and policy names none" + (f"; {hint}" if hint else "")
    return said if said.endswith("?") else f"{said}."


def not_ours(model: str, where: str, served: Iterable[str]) -> Refused:
    """The refusal of a verb for a model that is not served there, with what to do."""
    names = ", ".join(sorted(served)) or "no model"
    return Refused(f"{where} serves {names}, not {model}: nothing was changed")


def is_model_id(name: str) -> bool:
    return MODEL_ID.fullmatch(name) is not None
