"""The runbook's own upkeep ("Runbook Maintenance"): who owns its page, when it was last reviewed, when that is due again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from mlrunbook.domain.errors import Invalid

MONTHS = {"Monthly": 1, "Quarterly": 3, "Annually": 12}
_FIELD = r"^- \*\*{name}:\*\* (.+)$"


@dataclass(frozen=True)
class Upkeep:
    owner: str
    frequency: str
    reviewed_on: date

    @property
    def due_on(self) -> date:
        """The same day so many months on; a month's last day where it is shorter."""
        months = self.reviewed_on.year * 12 + self.reviewed_on.month - 1 + MONTHS[self.frequency]
        for day in range(self.reviewed_on.day, 27, -1):
            try:
                return date(months // 12, months % 12 + 1, day)
            except ValueError:
                continue
        return date(months // 12, months % 12 + 1, self.reviewed_on.day)

    def verdict(self, today: date) -> tuple[bool, str]:
        """Is its review in time?

        >>> Upkeep("ML Team Lead", "Quarterly", date(2026, 11, 30)).verdict(date(2027, 2, 1))
        (True, 'reviewed on 2026-11-30, due again on 2027-02-28 (quarterly, by the ML Team Lead)')
        """
        by = f"{self.frequency.lower()}, by the {self.owner}"
        if self.reviewed_on > today:
            return False, f"its last review is dated {self.reviewed_on}, which is yet to come: correct the date"
        if today > self.due_on:
            late = (today - self.due_on).days
            return False, f"its review is {late} day{'' if late == 1 else 's'} overdue: it was due on {self.due_on} ({by})"
        return True, f"reviewed on {self.reviewed_on}, due again on {self.due_on} ({by})"


def read(markdown: str) -> Upkeep:
    """From the page's list under "Runbook Maintenance". Invalid names the line that is missing or cannot be read."""
    owner, frequency, reviewed = (_field(markdown, name) for name in ("Owner", "Review Frequency", "Last Reviewed"))
    if frequency not in MONTHS:
        raise Invalid(f'the runbook\'s "Review Frequency" is {frequency!r}: write {", ".join(MONTHS)}', field="Review Frequency")
    try:
        return Upkeep(owner, frequency, date.fromisoformat(reviewed))
    except ValueError as error:
        raise Invalid(f'the runbook\'s "Last Reviewed" is {reviewed!r}: write a date as 2026-01-31', field="Last Reviewed") from error


def _field(markdown: str, name: str) -> str:
    found = re.search(_FIELD.format(name=name), markdown, re.MULTILINE)
    if not found:
        raise Invalid(f'the runbook has no line "- **{name}:** ...": add it under "Runbook Maintenance"', field=name)
    return found[1].strip()
