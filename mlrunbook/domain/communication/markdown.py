"""Text that somebody else wrote, as literal Markdown."""

from __future__ import annotations

import re

from mlrunbook.domain.communication.messages import line


def md(text: str) -> str:
    """`text` as one literal line of Markdown, safe in a table cell: no cell, link, tag, code or heading of its own."""
    escaped = re.sub(r"([\\`|\[\]])", r"\\\1", re.sub(r"&(?=#?\w+;)", "&amp;", line(text))).replace("<", "&lt;")
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", re.sub(r"^([#+=~*>-])", r"\\\1", escaped))
