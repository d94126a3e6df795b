"""Which model an alert is about.

Policy's word about the name that the alert gives its model counts most, then a name that is known here, then what policy makes of any other
thing the alert says, then a name that nobody knows: that one only where the alert looks like one about a model. A disk, a switch and a
printer have a label `model` as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlrunbook.domain.intake.facts import Facts
from mlrunbook.domain.intake.words import is_placeholder
from mlrunbook.domain.policy.intake import MODEL_ID, MODEL_LABELS, IntakePolicy
from mlrunbook.domain.policy.owned import Known, Standing

# A registry's or a cloud's name of a model in full: models/NAME:VERSION, models:/NAME/VERSION, models/NAME/versions/VERSION, NAME@VERSION.
_RESOURCES = (
    re.compile(r"(?:^|/)models:?/+(?P<model>[^/:@]+)(?:(?:/versions)?/|[:@])(?P<version>[^/:@]+)$"),
    re.compile(r"(?:^|/)(?:registered-?)?models:?/+(?P<model>[^/:@]+)$"),
    re.compile(r"^(?P<model>[^/:@\s]+)[:@](?P<version>[^/:@\s]+)$"),
)


@dataclass(frozen=True)
class Named:
    """`version` None: not said with the name."""

    model: str
    version: str | None
    because: str


@dataclass(frozen=True)
class Unnamed:
    """Why there is no model, and what to do: said of an alert or of a change."""

    reason: str


@dataclass(frozen=True)
class _Name:
    """A name that the alert gives its model. `model` "": it is no model id."""

    field: str
    said: str
    model: str
    version: str | None = None
    is_part: bool = False  # `model` is only a part of what was said: it counts where it is known


def asked_about(facts: Facts) -> frozenset[str]:
    """The names whose standing `identify` wants to know."""
    return frozenset(name.model for name in _names(facts) if name.model)


def identify(facts: Facts, policy: IntakePolicy, standings: Mapping[str, Standing], *, about_a_model: bool) -> Named | Unnamed:
    """`standings`: what is known of the names of `asked_about`; one that is missing could not be asked about.

    `about_a_model`: what kind of incident it is was recognised, so it is worth one although nobody knows the name.
    """
    names = list(_names(facts))
    own = {name.field for name in names}
    if mapped := _mapped({field: value for field, value in facts.said.items() if field in own}, policy):
        return mapped
    if known := next((name for name in names if name.model and _standing(name, standings).known is Known.KNOWN), None):
        return _named(known, "which the registry or policy knows")
    if mapped := _mapped({field: value for field, value in facts.said.items() if field not in own}, policy):
        return mapped
    for name in names:
        if not name.model or name.is_part:
            continue
        standing = _standing(name, standings)
        if not standing.is_unknown:
            return _named(name, "which is taken as it is: no registry answered")
        if about_a_model or standing.hint.startswith("did you mean"):
            return _named(name, "which nobody knows here")
    return Unnamed(_why_none(names, standings))


def _names(facts: Facts) -> Iterator[_Name]:
    """Every name that the alert gives its model, the plainest first."""
    given, version = facts.model
    if MODEL_ID.fullmatch(given):
        yield _Name("model", given, given, version or None)
    fields = [field for field in facts.said if field in facts.model_fields or field.casefold() in MODEL_LABELS]
    for field in sorted(fields, key=lambda one: (one not in facts.model_fields, _rank(one))):
        said = facts.said[field].strip()
        if is_placeholder(said):
            yield _Name(field, said, said if MODEL_ID.fullmatch(said) else "", is_part=True)
        elif MODEL_ID.fullmatch(said):
            yield _Name(field, said, said)
        elif match := next((m for pattern in _RESOURCES if (m := pattern.search(said)) and MODEL_ID.fullmatch(m["model"])), None):
            yield _Name(field, said, match["model"], match.groupdict().get("version"))
        elif said:
            last = said.rpartition("/")[2]  # org/name, as model hubs write it: only where that is a model of ours
            yield _Name(field, said, last if "/" in said and MODEL_ID.fullmatch(last) else "", is_part=True)


def _rank(field: str) -> int:
    return MODEL_LABELS.index(field.casefold()) if field.casefold() in MODEL_LABELS else len(MODEL_LABELS)


def _standing(name: _Name, standings: Mapping[str, Standing]) -> Standing:
    return standings.get(name.model, Standing(Known.UNREACHABLE))


def _mapped(said: Mapping[str, str], policy: IntakePolicy) -> Named | None:
    if (line := policy.line_for(said)) is None:
        return None
    return Named(policy.models[line], None, f"intake.models has the line {line!r}")


def _named(name: _Name, why: str) -> Named:
    return Named(name.model, name.version, f"its {name.field} is {name.said[:100]!r}, {why}")


def _why_none(names: Sequence[_Name], standings: Mapping[str, Standing]) -> str:
    todo = "say in `intake.models` of the policy which model it is about"
    for name in names:
        if name.model and not name.is_part:
            hint = _standing(name, standings).hint
            told = f"says {name.field} {name.said[:100]!r}, which neither the registry nor policy knows, and nothing else is about a model"
            return told + (f" ({hint})" if hint else "") + f": register it under `models:`, or {todo}"
    if names:
        first = names[0]
        if is_placeholder(first.said):
            return f"says {first.field} {first.said[:100]!r}, which stands for no value: {todo}"
        return f"says {first.field} {first.said[:100]!r}, which is no model id (letters, digits, '.', '_' and '-', 100 at most): {todo}"
    return f"names no model: give it a label or field `model`, or {todo}"
