"""Security and compliance incidents: what kind it is, and whether the model server is cut off at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.incident import IncidentType, Severity, Subtype
from mlrunbook.domain.policy.changes import BreachPolicy
from mlrunbook.domain.records import Record, Recorded


class Verdict(NamedTuple):
    """Whether the model server is cut off at once (else a person decides), and why. `is_trusted`: policy trusts somebody who calls it a
    breach; without, nothing that anybody measures cuts the server off either."""

    at_once: bool
    why: str
    is_trusted: bool = True


@dataclass(frozen=True)
class Alarm(Recorded, key=Record.ALARM):
    """The officers were notified, on what was known of the breach then."""

    kinds: tuple[Subtype, ...] = ()


@dataclass(frozen=True)
class IsolationWaits(Recorded, key=Record.ISOLATION_WAITS):
    """People have heard that the model server could not be isolated yet; it is tried again."""

    error: str


@dataclass(frozen=True)
class Release(Recorded, key=Record.RELEASE):
    """The plan to lift an isolation, for the state of the fix that its key names."""

    digest: str


# What alert names, summaries and reports say. Several may fit: what follows from each then holds.
_SAID = {
    Subtype.UNAUTHORISED_ACCESS: r"unauthori[sz]ed|intru(?:der|sion)|stolen (?:token|credential|key)|compromised",
    Subtype.ADVERSARIAL_ATTACK: r"adversarial|\bprob(?:ed|ing|es)\b|model ?extraction|poison|evasion attack",
    Subtype.DATA_LEAKAGE: r"\bdata ?(?:leak|breach)|leakage|exfiltrat|\bleaked\b",
    Subtype.PRIVACY_BREACH: r"privacy|personal data|data subject",
    Subtype.REGULATORY_VIOLATION: r"regulat(?:ion|ory)|violates? the law|non-?complian",
    Subtype.AUDIT_FAILURE: r"\baudit",
}
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def subtype_for(type_: IncidentType, subtype: Subtype | None) -> Subtype | None:
    """The stated kind, when it is one of this type. Raises Invalid otherwise."""
    if subtype is not None and subtype.type is not type_:
        raise Invalid(f"{subtype.words} is an incident of type {subtype.type}, not {type_}", field="subtype")
    return subtype


def recognise(
    stated: Iterable[Subtype], alerts: Iterable[tuple[str, str, str]], description: str, policy: BreachPolicy
) -> frozenset[Subtype]:
    """The kinds of a breach: what people stated and what alerts are labelled or known as; without either, what the words say. Empty: not
    known. `alerts` are (name, label "subtype" or "", summary)."""
    alerts = list(alerts)
    known = set(stated)
    for name, label, _ in alerts:
        if label in set(Subtype):
            known.add(Subtype(label))
        elif name in policy.alert_subtypes:
            known.add(policy.alert_subtypes[name])
    if known:
        return frozenset(known)
    said = " ".join([description, *(f"{_CAMEL.sub(' ', name)} {summary}" for name, _, summary in alerts)])
    return frozenset(kind for kind, pattern in _SAID.items() if re.search(pattern, said, re.IGNORECASE))


def in_words(kinds: Collection[Subtype], type_: IncidentType) -> str:
    return " and ".join(sorted(k.words for k in kinds)) or f"{type_} incident of a kind that is not known"


def is_on_paper(kinds: Collection[Subtype], severity: Severity) -> bool:
    """An audit found something outdated: a ticket for the compliance officer (runbook, "Severity Levels", Low), no breach of anything."""
    return severity is Severity.LOW and set(kinds) == {Subtype.AUDIT_FAILURE}


def unproven(what: str, by: Collection[str]) -> Verdict:
    """Nobody whom policy trusts for isolation says that it is a breach."""
    who = ", ".join(sorted(by)) or "an unknown sender"
    why = f"{who} calls it {what}, and policy does not isolate on that word (not proven, or not in intake.trusted_for.isolation)"
    return Verdict(False, f"{why}: a person decides about isolating the model server", is_trusted=False)


def isolation(type_: IncidentType, kinds: Collection[Subtype], severity: Severity, policy: BreachPolicy) -> Verdict:
    """Whether the model server is isolated at once (else a person decides), and why.

    A security incident of an unknown kind takes the most cautious course. A compliance incident of an unknown kind does not: most of them
    are questions, and people are told at once. What a person calls low is left to a person.
    """
    what = in_words(kinds, type_)
    if severity is Severity.LOW:
        return Verdict(False, f"{what}, reported as low: a person decides about isolating the model server")
    if grave := sorted(k.words for k in kinds if k in policy.isolate_at_once):
        return Verdict(True, f"{' and '.join(grave)}: the model server is cut off, and runs on as evidence")
    if not kinds and type_ is IncidentType.SECURITY:
        return Verdict(True, f"{what}: the most cautious course, the model server is cut off, and runs on as evidence")
    return Verdict(False, f"{what}: stopping to serve undoes nothing, a person decides about isolating the model server")
