"""A page as a browser would take it: its text, its links and fields, and what a strict policy would refuse of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "input", "br", "hr", "img"}


@dataclass
class Read(HTMLParser):
    """`refused`: inline script or style. `open`: tags that nothing has closed yet."""

    text: str = ""
    headings: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    labelled: set[str] = field(default_factory=set)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.refused += [f"{tag} {name}" for name in given if name == "style" or name.startswith(("on", "hx-on"))]
        if tag in ("script", "style", "iframe", "object", "img") and not given.get("src", "").startswith(("/static/", "/docs/")):
            self.refused.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "a":
            self.links.append(given.get("href", ""))
        if tag == "label":
            self.labelled.add(given.get("for", ""))
        if tag in ("input", "select", "textarea") and given.get("type") != "hidden":
            self.fields[given.get("name", "")] = given.get("id", "")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h1":
            self.headings.append(data)
        self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def read(answer: Any) -> Read:
    """A page that was answered well: one heading, a label on each field, ids that are unique, nothing that the policy would refuse."""
    assert answer.status_code == 200, answer.text
    return checked(answer)


def checked(answer: Any) -> Read:
    page = Read()
    page.feed(answer.text)
    assert page.refused == []
    assert len(page.headings) == 1, page.headings
    assert len(set(page.ids)) == len(page.ids), page.ids
    assert set(page.fields.values()) <= page.labelled | {""}
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    return page
