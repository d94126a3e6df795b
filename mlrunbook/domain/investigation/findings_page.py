"""The findings as a person reads them: the diagnosis, what else it may be, and the checklist."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from mlrunbook.domain.communication.markdown import md
from mlrunbook.domain.investigation.findings import CHECKLIST, Finding, State


def findings_markdown(incident_id: str, diagnosis: str, leads: Sequence[str], found: Sequence[Finding]) -> str:
    """The diagnosis, what else it may be, and one table a group of the checklist. Not Prefect's own table: that one cuts the sentences
    and shows ten rows."""
    lines = [f"## Findings of {md(incident_id)}", "", md(diagnosis), ""]
    if leads:
        lines += ["### Causes by score", "", *(f"{n}. {md(lead)}" for n, lead in enumerate(leads, 1)), ""]
    answers = {f.key: f for f in found}
    for group, items in groupby(CHECKLIST, key=lambda item: item.group):
        lines += [f"### {group}", "", "| Item | State | Finding | Source |", "|---|---|---|---|"]
        for item in items:
            if answer := answers.get(item.key):
                state = f"**{answer.state}**" if answer.state is State.SUSPECT else str(answer.state)
                lines.append(f"| {item.title} | {state} | {md(answer.sentence)} | {md(answer.source)} |")
        lines.append("")
    return "\n".join(lines)
