"""The Markdown pages as data: headings, links, code spans, tables, and the commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """The text without fenced blocks."""
        return _FENCE.sub("", self.text)

    @cached_property
    def headings(self) -> list[tuple[int, str]]:
        return [(len(hashes), title.strip()) for hashes, title in _HEADING.findall(self.prose)]

    @cached_property
    def anchors(self) -> set[str]:
        """As GitHub makes them: small letters, punctuation gone, spaces to hyphens."""
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for _, title in self.headings}

    @cached_property
    def links(self) -> list[str]:
        return _LINK.findall(self.prose)

    @cached_property
    def spans(self) -> list[str]:
        """Code spans; one that is broken over two lines is one."""
        return [" ".join(span.split()) for span in _SPAN.findall(self.prose)]

    def blocks(self, language: str) -> list[str]:
        return [body for name, body in _FENCE.findall(self.text) if name == language]

    @cached_property
    def shell_commands(self) -> list[str]:
        """Every command of the bash blocks, continued lines joined, in order."""
        return [command for block in self.blocks("bash") for command in _commands(block)]

    def commands_of(self, heading: str) -> list[str]:
        """The shell commands below a heading, in order."""
        blocks = [body for name, body in _FENCE.findall(self.section(heading)) if name == "bash"]
        return [command for block in blocks for command in _commands(block)]

    @cached_property
    def all_commands(self) -> list[str]:
        """Those of the blocks, and code spans that are a command of ours."""
        return self.shell_commands + [span for span in self.spans if span.startswith(("mlrunbook ", "make "))]

    def section(self, heading: str) -> str:
        """The text below a heading, up to the next one of its level or above."""
        level = next(level for level, title in self.headings if title == heading)
        start = self.text.index(f"\n{'#' * level} {heading}\n") + 1
        end = re.compile(rf"^#{{1,{level}}} ", re.MULTILINE).search(self.text, start + level + 1)
        return self.text[start : end.start() if end else None]

    def table(self, heading: str, number: int = 0) -> list[list[str]]:
        """The rows of a table below a heading, without its head."""
        tables: list[list[list[str]]] = [[]]
        for line in self.section(heading).splitlines():
            if line.startswith("|"):
                tables[-1].append([cell.strip().strip("*") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
            elif tables[-1]:
                tables.append([])
        return [table for table in tables if table][number][2:]


def _commands(block: str) -> Iterator[str]:
    pending = ""
    for line in block.splitlines():
        pending = f"{pending}\n{line}" if pending else line
        if not line.endswith("\\") and pending.strip():
            yield pending
            pending = ""


README = Page(ROOT / "README.md")
RUNBOOK = Page(ROOT / "docs" / "runbooks" / "ml-model-incident.md")
PAGES = [README, Page(ROOT / "CONTRIBUTING.md"), Page(ROOT / "CHANGELOG.md"), *(Page(p) for p in sorted((ROOT / "docs").rglob("*.md")))]
