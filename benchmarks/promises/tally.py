"""What went wrong, counted; each by one line that brings it back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS = ("lost", "double", "missed_pages", "stuck", "through")


@dataclass
class Tally:
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    figures: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def wrong(self, kind: str, what: str, *, again: str) -> None:
        """`again`: what brings it back, as arguments of `python -m benchmarks promises`."""
        assert kind in KINDS, kind
        self.counts[kind] += 1
        self.lines.append(f"{kind}: {what}; again: python -m benchmarks promises {again}")
        print(self.lines[-1], flush=True)

    def note(self, **figures: Any) -> None:
        self.figures |= figures

    def add(self, **figures: float) -> None:
        for name, n in figures.items():
            self.figures[name] = round(self.figures.get(name, 0) + n, 1)

    def take_over(self, other: Tally) -> None:
        """What another process has found; it has printed its lines itself."""
        self.counts += other.counts
        self.lines += other.lines
        self.add(**other.figures)

    @property
    def held(self) -> bool:
        return not any(self.counts.values())

    def as_json(self) -> str:
        row: Mapping[str, Any] = {kind: self.counts[kind] for kind in KINDS} | {"seed": self.seed} | self.figures
        return json.dumps(row)
