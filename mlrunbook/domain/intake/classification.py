"""What kind of incident an alert is about: by its label, else by the alert's name, wherever in a title that stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from mlrunbook.domain.incident import IncidentType, Subtype
from mlrunbook.domain.intake.facts import Judged
from mlrunbook.domain.policy.patterns import fits, is_pattern

DEFAULT_TYPE = IncidentType.PERFORMANCE_DEGRADATION
TYPE_LABELS = ("incident_type", "incidenttype")
SUBTYPE_LABELS = ("subtype", "incident_subtype")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\s_.-]+")


def classify(title: str, said: Mapping[str, str], alert_types: Mapping[str, IncidentType], *, unanswered: str = "") -> Judged[IncidentType]:
    """The type, and what decided it."""
    if labelled := _by_label(said):
        return labelled
    if unanswered:
        return Judged(IncidentType.INFRASTRUCTURE, f"its sender could not measure ({unanswered[:200]}), so what measures is what failed")
    if line := line_for(title, alert_types):
        return Judged(alert_types[line], f"alert_types has the line {line}")
    return Judged(
        DEFAULT_TYPE, "no line of alert_types fits its name and no label incident_type says it, so triage decides", is_known=False
    )


def line_for(title: str, alert_types: Mapping[str, IncidentType]) -> str | None:
    """The line of `alert_types` that the title falls under: the name itself, the longest name that stands in it, then the most specific
    pattern. Case and how its words are joined do not count: `model_f1_drop` and "Model F1 drop" are ModelF1Drop."""
    if title in alert_types and not is_pattern(title):
        return title
    names = [name for name in alert_types if not is_pattern(name) and _in_title(name).search(title)]
    if names:
        return max(names, key=lambda name: (len(name), name))
    patterns = [name for name in alert_types if is_pattern(name) and fits(title.casefold(), name.casefold())]
    return max(patterns, key=lambda name: (len(name) - name.count("*") - name.count("?"), name), default=None)


def _by_label(said: Mapping[str, str]) -> Judged[IncidentType] | None:
    named = {name.casefold(): (name, value) for name, value in said.items()}
    for label in TYPE_LABELS:
        name, value = named.get(label, ("", ""))
        if (word := _code(value)) in {one.value for one in IncidentType}:
            return Judged(IncidentType(word), f"its label {name} says {value[:50]!r}")
    for label in SUBTYPE_LABELS:
        name, value = named.get(label, ("", ""))
        if (word := _code(value)) in {one.value for one in Subtype}:
            return Judged(Subtype(word).type, f"its label {name} says {value[:50]!r}")
    return None


def _code(value: str) -> str:
    return re.sub(r"[\s-]+", "_", value.strip().casefold())


@lru_cache(maxsize=1024)
def _in_title(name: str) -> re.Pattern[str]:
    joined = r"[\s_.-]*".join(re.escape(word) for word in _HUMP.split(name) if word)
    return re.compile(rf"(?<![^\W_]){joined}(?![^\W_])", re.IGNORECASE)
