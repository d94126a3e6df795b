"""Putting models and connections into a policy file without touching a line that somebody else wrote."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from mlrunbook.diagnostics.connect.rendering import scalar
from mlrunbook.domain.errors import Refused

_BEGIN = re.compile(r"^\s*# mlrunbook connect: (?P<model>\S+) begins here, (?P<digest>[0-9a-f]{10})$")
_ENDS = re.compile(r"^\s*# mlrunbook connect: \S+ ends here\s*$")
_END = "# mlrunbook connect: {model} ends here"


@dataclass(frozen=True)
class Written:
    """The file's new text, the models put in, and those left as they are, each with why."""

    text: str
    models: tuple[str, ...]
    left: Mapping[str, str]


def write(text: str, connections: Mapping[str, str], models: Mapping[str, Sequence[str]], *, replace: bool = False) -> Written:
    """`connections`: name to kind. `models`: id to its lines, as they stand two spaces in. A model that somebody wrote by hand stays; one
    that `connect` wrote is replaced where nobody has edited it since, or with `replace`."""
    for name, kind in connections.items():
        if name not in (_mapping(text, "connections") or {}):
            text = _added(text, "connections", [f"  {name}: {{kind: {kind}}}"])
    written, left = [], {}
    for model, lines in models.items():
        if model not in (_mapping(text, "models") or {}):
            text = _added(text, "models", _block(model, lines))
        elif (why := _kept(text, model, replace=replace)) is not None:
            left[model] = why
            continue
        else:
            text = _replaced(text, model, lines)
        written.append(model)
    return Written(text, tuple(written), left)


def _kept(text: str, model: str, *, replace: bool) -> str | None:
    """Why the model's section stays as it is; None: it may be replaced."""
    found = _find(text, model)
    if found is None:
        return "it is in the file already, in your own words"
    begin, end = found
    lines = text.split("\n")
    match = _BEGIN.match(lines[begin])
    if match and match["digest"] != _digest(_flush(lines[begin + 1 : end])) and not replace:
        return "somebody has edited it since connect wrote it; --replace writes it anew"
    return None


def _find(text: str, model: str) -> tuple[int, int] | None:
    """The lines of the markers around a model."""
    lines = text.split("\n")
    for begin, line in enumerate(lines):
        match = _BEGIN.match(line)
        if match and match["model"] == model:
            for end in range(begin, len(lines)):
                if lines[end].strip() == _END.format(model=model):
                    return begin, end
    return None


def _replaced(text: str, model: str, new: Sequence[str]) -> str:
    begin, end = _find(text, model) or (0, 0)
    lines = text.split("\n")
    indent = lines[begin][: len(lines[begin]) - len(lines[begin].lstrip())]
    return "\n".join([*lines[:begin], *_indented(_block(model, new), indent), *lines[end + 1 :]])


def _block(model: str, lines: Sequence[str]) -> list[str]:
    head = f"  # mlrunbook connect: {model} begins here, {_digest(_flush(lines))}"
    return [head, *lines, f"  {_END.format(model=model)}"]


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(line.rstrip() for line in lines).encode()).hexdigest()[:10]


def _flush(lines: Sequence[str]) -> list[str]:
    """Without the indentation that they have in common."""
    least = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return [line[least:] for line in lines]


def _indented(lines: Sequence[str], indent: str) -> list[str]:
    return [indent + line if line else line for line in _flush(lines)]


def _root(text: str) -> yaml.MappingNode | None:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return root if isinstance(root, yaml.MappingNode) else None


def _entry(text: str, section: str) -> tuple[yaml.Node, yaml.Node] | None:
    root = _root(text)
    return next(((key, value) for key, value in root.value if key.value == section), None) if root else None


def _mapping(text: str, section: str) -> dict[str, yaml.Node] | None:
    found = _entry(text, section)
    return {key.value: value for key, value in found[1].value} if found and isinstance(found[1], yaml.MappingNode) else None


def _added(text: str, section: str, block: Sequence[str]) -> str:
    """With the block as the last entries of the section, which is made where it is missing or empty."""
    found = _entry(text, section)
    lines = text.split("\n")
    if found is None:
        at = len(lines) - 1 if lines[-1] == "" else len(lines)
        return "\n".join([*lines[:at], *(["", f"{section}:"] if at else [f"{section}:"]), *block, ""])
    key, value = found
    at = key.start_mark.line
    if not value.value:  # `models: {}`, `models:`, `models: null`
        kept = lines[at][value.end_mark.column :] if value.end_mark.line == at and value.value is not None else ""
        lines[at] = f"{scalar(section)}:" + (f" {kept.strip()}" if kept.strip() else "")
        return "\n".join([*lines[: at + 1], *block, *lines[at + 1 :]])
    if not isinstance(value, yaml.MappingNode):
        raise Refused(f"line {at + 1}: `{section}` holds no names and values: mlrunbook policy check says what is wrong")
    if value.flow_style:
        raise Refused(f"line {at + 1}: `{section}` is written as {{...}} on one line: write it out, an entry a line, then run it again")
    indent = " " * value.start_mark.column
    last = _end_line(value)
    if last + 1 < len(lines) and _ENDS.match(lines[last + 1]):
        last += 1
    return "\n".join([*lines[: last + 1], *_indented(block, indent), *lines[last + 1 :]])


def _end_line(node: yaml.Node) -> int:
    """The last line that holds something of it: YAML's own mark is beyond comments and blank lines that follow."""
    if isinstance(node, yaml.ScalarNode) or (isinstance(node, yaml.CollectionNode) and (node.flow_style or not node.value)):
        ends_at_next = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
        return node.end_mark.line - 1 if ends_at_next else node.end_mark.line
    last = node.value[-1]
    return _end_line(last[1] if isinstance(last, tuple) else last)
