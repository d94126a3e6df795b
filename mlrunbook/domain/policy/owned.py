"""Which models there are, whose they are, and what of the world and of the policy belongs to each: the section `models` of the policy.

Pattern matching is that of shells with `*` and `?` alone. Of several patterns that fit, the most specific one counts, key by key: what it
leaves out comes from the next wider one, and in the end from the top of the policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from enum import StrEnum
from itertools import combinations
from typing import Any

from mlrunbook.domain.errors import Refused
from mlrunbook.domain.policy.cluster import ClusterObjects
from mlrunbook.domain.policy.connections import PlatformParts
from mlrunbook.domain.policy.intake import MODEL_ID
from mlrunbook.domain.policy.modes import Mode
from mlrunbook.domain.policy.own import laid_over
from mlrunbook.domain.policy.patterns import fitting, is_pattern

Keys = dict[str, Any] | None
_PATTERN = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9._*?-]{0,99}")


@dataclass(frozen=True)
class ModelRules:
    """One model, or all whose name fits a pattern. None: left out.

    owner          the team that answers for it, in words for people; "" where nobody is named
    mode           how far the runbook goes by itself
    cluster        its objects in the cluster: of one model alone, so never under a pattern
    feature_views  the feature views that it reads and an incident of it may materialise, as `features: {views: [...]}`
    channels       what stands for a channel of the policy: `{page: page_churn}`
    feeds          the models that read this one's output
    platform       what its platform is composed of, taken as a whole; None: the REST platform alone

    The others are sections of the policy: those keys of each that are its own.
    """

    owner: str = ""
    mode: Mode | None = None
    cluster: ClusterObjects | None = None
    feature_views: tuple[str, ...] | None = None
    channels: dict[str, str] | None = None
    feeds: tuple[str, ...] = ()
    platform: PlatformParts | None = None
    roles: Keys = None
    escalation: Keys = None
    contacts: Keys = None
    approvals: Keys = None
    alerts: Keys = None
    severity: Keys = None
    containment: Keys = None
    costs: Keys = None
    features: Keys = None
    training: Keys = None
    retraining: Keys = None

    def over(self, wider: ModelRules) -> ModelRules:
        """What this leaves out as `wider` has it."""
        made = {}
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(wider, one.name)
            if one.name in LAID_OVER and mine and theirs:
                made[one.name] = laid_over(theirs, mine)
            else:  # no feature view at all is said too: nothing of it may be materialised
                made[one.name] = mine if mine or (one.name == "feature_views" and mine is not None) else theirs
        return ModelRules(**made)


OWN_SECTIONS = (
    "roles", "escalation", "contacts", "approvals", "alerts", "severity", "containment", "costs", "features", "training", "retraining",
)  # fmt: skip
LAID_OVER = (*OWN_SECTIONS, "channels")


def rules_for(model: str, models: Mapping[str, ModelRules]) -> ModelRules:
    """What the section says of the model, from the most specific name or pattern to the widest."""
    found = ModelRules()
    for name in fitting(model, models):
        found = found.over(models[name])
    return found


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
