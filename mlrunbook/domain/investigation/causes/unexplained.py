"""What is left when no cause is found: nothing is wrong that can be measured, or the cause is not known."""

from __future__ import annotations

from mlrunbook.domain.cause import Cause
from mlrunbook.domain.investigation.causes.case_file import CaseFile, Line, negated
from mlrunbook.domain.investigation.causes.definition import CAUSE_OPEN, CauseDefinition, Remedy, retrain_or
from mlrunbook.domain.investigation.findings import CHECKLIST, Finding, State

SUSPECTS_SHOWN, SUSPECT_CHARS = 3, 110  # a page holds no more


# --- nothing is wrong


def nothing_wrong_evidence(file: CaseFile) -> list[Line]:
    facts, probing = file.facts, file.facts.probing
    known = facts.status is not None or facts.metrics is not None
    served_well = facts.trouble is None and not facts.not_loaded if known else None
    trouble = facts.trouble.sentence if facts.trouble else file.load_words
    suspects = sum(f.state is State.SUSPECT for f in _beside_changes(file))
    return [
        Line(0.0, served_well, "requests are answered" if served_well else trouble, required=True),
        file.not_degraded(0.4, required=True),
        Line(0.0, not facts.missed, facts.missed or "no critical failure was missed", required=True),
        Line(0.0, not suspects, f"{suspects} items are suspect" if suspects else "no checked item is suspect", required=True),
        Line(0.0, negated(probing.suspicious) if probing else None, probing.sentence if probing else "the log was not read"),
        *(_sound(file, group) for group in ("model_performance", "data_quality", "infrastructure", "ground_truth")),
    ]


def _beside_changes(file: CaseFile) -> list[Finding]:
    return [f for f in file.findings.values() if not f.key.startswith("recent_changes.")]


def _sound(file: CaseFile, group: str) -> Line:
    """Every item of the group that could be checked is ok, and one could: `unknown` is not `ok`."""
    items = [f for f in file.findings.values() if f.key.startswith(f"{group}.")]
    ok = [f for f in items if f.state is State.OK]
    holds = False if any(f.state is State.SUSPECT for f in items) else None if len(ok) < len(items) or not ok else True
    return Line(0.15, holds, f"{group.replace('_', ' ')}: {len(ok)} of {len(items)} items are ok")


def nothing_wrong_remedy(file: CaseFile) -> Remedy:
    look = "wait for more outcomes, or close it as a false alarm (mlrunbook incidents close --false-alarm)"
    return retrain_or(file, Cause.NOTHING_WRONG, look)


def no_whys(_: CaseFile) -> tuple[str, ...]:
    return ()


NOTHING_WRONG = CauseDefinition(
    Cause.NOTHING_WRONG,
    "nothing is wrong that can be measured",
    nothing_wrong_evidence,
    nothing_wrong_remedy,
    no_whys,
    CAUSE_OPEN,
)


# --- the cause is not known


def no_evidence(_: CaseFile) -> list[Line]:
    """Nothing speaks for it: it is what remains."""
    return []


def unknown_remedy(file: CaseFile) -> Remedy:
    missed = file.facts.missed
    look = f"look at the asset, its readings before the failure and what its sensors cannot see ({missed}); the model is no worse"
    return retrain_or(file, Cause.UNKNOWN, look if missed else look_through(file))


def look_through(file: CaseFile) -> str:
    """What to go through by hand: the suspect findings, first those that speak most for any cause."""
    suspect = [f for f in file.findings.values() if f.state is State.SUSPECT]
    unknown = sum(f.state is State.UNKNOWN for f in file.findings.values())
    not_checked = f"; {unknown} item{'s' if unknown > 1 else ''} could not be checked" if unknown else ""
    if not suspect:
        return f"no checked item is suspect{not_checked}; look at what could not be checked, and at the model itself"

    def weight(finding: Finding) -> float:
        lines = [line for lines in file.lines_of.values() for line in lines if line.holds and finding.sentence in line.sentence]
        return max((line.weight for line in lines), default=0.0)

    place = [item.key for item in CHECKLIST]
    ranked = sorted(suspect, key=lambda f: (-weight(f), place.index(f.key)))
    shown = "; ".join(f"{n}. {_shortened(f.sentence)}" for n, f in enumerate(ranked[:SUSPECTS_SHOWN], start=1))
    more = f"; and {len(ranked) - SUSPECTS_SHOWN} more" if len(ranked) > SUSPECTS_SHOWN else ""
    return f"go through the suspect findings: {shown}{more}{not_checked}"


def _shortened(sentence: str) -> str:
    return sentence if len(sentence) <= SUSPECT_CHARS else sentence[: SUSPECT_CHARS - 1].rstrip() + "…"


def unknown_whys(file: CaseFile) -> tuple[str, ...]:
    return (file.performance_of_a_type_fell,)


UNKNOWN = CauseDefinition(
    Cause.UNKNOWN,
    "the cause is not known",
    no_evidence,
    unknown_remedy,
    unknown_whys,
    CAUSE_OPEN,
)
