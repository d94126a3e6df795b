"""How bad an alert says it is: one of three levels, whatever words its sender has."""

from __future__ import annotations

from mlrunbook.domain.intake.facts import Facts, Judged
from mlrunbook.domain.intake.words import meaning
from mlrunbook.domain.policy.intake import LEVELS, IntakePolicy

LABELS = ("severity", "priority", "level", "alert_severity", "severity_level", "sev")
LIKE_LABELS = ("severity", "priority")
WEAK_LABELS = ("urgency", "importance", "impact")  # they speak where nothing else does


def grade(facts: Facts, policy: IntakePolicy) -> Judged[str]:
    """The first word of `levels` that policy knows; without one, the worst that the labels say; "" where nothing does."""
    for word in facts.levels:
        if level := meaning(word, policy.levels):
            return _said("it says", word, level)
    said = {name.casefold(): value for name, value in facts.said.items()}
    like = tuple(sorted(name for name in said if name not in LABELS and name.endswith(LIKE_LABELS)))  # "sloth_severity"
    for labels in (LABELS, like, WEAK_LABELS):
        words = [(label, said[label]) for label in labels if said.get(label)]
        known = [(level, label, word) for label, word in words if (level := meaning(word, policy.levels))]
        if known:
            level, label, word = min(known, key=lambda one: LEVELS.index(one[0]))
            return _said(f"its {label} is", word, level)
    unknown = [word for word in (*facts.levels, *(said[label] for label in LABELS if said.get(label))) if word]
    if unknown:
        return Judged("", f"{unknown[0][:50]!r} is no word of intake.levels, so it counts as medium", is_known=False)
    return Judged("", "it names no level, so it counts as medium", is_known=False)


def _said(how: str, word: str, level: str) -> Judged[str]:
    return Judged(level, f"{how} {word[:50]!r}, which intake.levels.{level} lists")
