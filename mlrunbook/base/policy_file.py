"""Reading `runbook.yaml`: every error at once, each with its line and what to write instead; and what is probably a mistake.

The file needs to hold only what differs from the defaults: it is laid over them, key by key; a list replaces a list.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mlrunbook.base.wording import plainly, shown
from mlrunbook.base.yaml_text import first_alias
from mlrunbook.domain.errors import Invalid, NotFound
from mlrunbook.domain.intake import policy_warnings
from mlrunbook.domain.policy.intake import unnamed_fields
from mlrunbook.domain.policy.judging import OLD_LIMITS
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.policy.policy_warnings import Doubt, KeyPath, dotted, doubts


def load(path: Path) -> Policy:
    """The policy in `path`. NotFound when there is no file; Invalid with one "file:line: key: what to do" per error."""
    return parse(_read(path), path.name)


def parse(text: str, name: str = "runbook.yaml") -> Policy:
    """`load`, from the file's text; `name` is how errors call it."""
    return _checked(text, name)[0]


def warnings(path: Path) -> list[str]:
    """What is probably a mistake in the policy in `path`, one "file:line: key: what and what to do" each, in the order of the file."""
    return warnings_of(_read(path), path.name)


def warnings_of(text: str, name: str = "runbook.yaml") -> list[str]:
    policy, lines = _checked(text, name)
    all_ = [*doubts(policy), *policy_warnings.doubts(policy), *_old_forms(lines)]
    written = [(_as_written(doubt.at, lines), doubt.said) for doubt in all_]
    found = sorted((_line(at, lines), f"{_dotted(at)}: {said}") for at, said in written)
    return [f"{name}:{line}: {said}" for line, said in dict.fromkeys(found)]


def lines_of(path: Path) -> Mapping[KeyPath, int]:
    """The line of every key that the file holds."""
    return _checked(_read(path), path.name)[1]


def _old_forms(lines: Mapping[KeyPath, int]) -> Iterator[Doubt]:
    """What is still read, and is written otherwise today."""
    keys = [at[2:] for at in lines if at[:2] == ("intake", "generic") and len(at) > 2]
    with_keys = {name for name, *inner in keys if inner and isinstance(inner[0], str)}
    if unnamed := unnamed_fields({str(name): {} if name in with_keys else None for name, *_ in keys}):
        words = "put them under `default:`, which is the mapping that /webhooks/generic uses; without that they will not be read one day"
        yield Doubt(("intake", "generic"), f"{', '.join(unnamed)}: a mapping has a name now; {words}")


def _as_written(at: KeyPath, lines: Mapping[KeyPath, int]) -> KeyPath:
    """The key that an older file has for it."""
    drops = ("severity", "drops")
    old = next(((*drops, key) for key, (i, name) in OLD_LIMITS.items() if (*drops, "metrics", i, name) == at), None)
    return old if old is not None and old in lines else at


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"{path} does not exist; copy runbook.yaml from the repository, or name yours in MLRUNBOOK_POLICY") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read as UTF-8 text: {error}") from error


def _checked(text: str, name: str) -> tuple[Policy, Mapping[KeyPath, int]]:
    """The policy, and the line of every key path of the file."""
    try:
        return _parse(text, name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Invalid(f"{name}:{mark.line + 1 if mark is not None else 1}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # an unprintable character; 2026-02-31; [[[[[...
        raise Invalid(f"{name}:1: not valid YAML: {' '.join(str(error).split())}") from error


def _parse(text: str, name: str) -> tuple[Policy, Mapping[KeyPath, int]]:
    if (alias := first_alias(text)) and alias.start_mark:
        raise Invalid(f"{name}:{alias.start_mark.line + 1}: write the value out instead of the alias *{alias.anchor}")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return Policy(), {(): 1}
    if not isinstance(root, yaml.MappingNode):
        raise Invalid(f"{name}:1: must hold keys and values, as in `triage:`; see the runbook.yaml of the repository")

    lines: dict[KeyPath, int] = {(): 1}
    errors = list(_walk(root, (), lines))
    if not errors:
        defaults = Policy().model_dump(mode="json")
        given = yaml.safe_load(text)
        _owner_goes_with_objects(given)
        try:
            # As JSON and strict: `count: "2"` and `count: true` are errors, while a role's name still becomes a Role.
            return Policy.model_validate_json(json.dumps(_laid_over(defaults, given), default=_json), strict=True), lines
        except ValidationError as error:
            details = error.errors()
            bad_lists = {detail["loc"][:depth] for detail in details for depth in range(len(detail["loc"]))}
            errors = [
                _explained(detail, lines, defaults)
                for detail in details
                if not (detail["type"] == "too_short" and detail["loc"] in bad_lists)  # a list is not short for its one bad item
            ]
    raise Invalid("\n".join(f"{name}:{line}: {said}" for line, said in sorted(set(errors))))


def _walk(node: yaml.Node, at: KeyPath, lines: dict[KeyPath, int]) -> Iterator[tuple[int, str]]:
    """Note the line of every key path; yield what YAML itself would let pass: keys given twice, keys that are not text."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                yield line, f"{_dotted(at)}: a key must be text; put it in quotes"
                continue
            path = (*at, key.value)
            if path in lines:
                yield line, f"{_dotted(path)}: given twice, first on line {lines[path]}; keep one"
            else:
                lines[path] = line
                yield from _walk(value, path, lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            lines[(*at, i)] = item.start_mark.line + 1
            yield from _walk(item, (*at, i), lines)


def _laid_over(defaults: Any, given: Any) -> Any:
    if not isinstance(defaults, dict):
        return given
    if given is None:  # a section with every line commented out
        return defaults
    if not isinstance(given, dict):
        return given
    return defaults | {key: _laid_over(defaults.get(key), value) if key in defaults else value for key, value in given.items()}


def _owner_goes_with_objects(given: Any) -> None:
    """Objects that a file names belong to the model that the same file names, never to the runbook's default one."""
    cluster = given.get("cluster") if isinstance(given, dict) else None
    if isinstance(cluster, dict) and cluster.get("default") and "default_model" not in cluster:
        cluster["default_model"] = None


def _explained(detail: ErrorDetails, lines: Mapping[KeyPath, int], defaults: Any) -> tuple[int, str]:
    # pydantic marks a bad key of a mapping with a last part of "[key]"
    path: KeyPath = tuple(part for part in detail["loc"] if part != "[key]")
    said = _said(detail, path, defaults)
    if detail["type"] == "value_error":
        # The rules across fields name the key themselves when the culprit is deeper than the section they belong to.
        head, colon, rest = said.partition(": ")
        deeper = (*path, *(int(part) if part.isdigit() else part for part in head.split(".")))
        if colon and " " not in head and any(deeper[:depth] in lines for depth in range(len(path) + 1, len(deeper) + 1)):
            path, said = deeper, rest
    return _line(path, lines), f"{_dotted(path)}: {said}"


def _said(detail: ErrorDetails, path: KeyPath, defaults: Any) -> str:
    context, kind, given = detail.get("ctx", {}), detail["type"], shown(detail["input"])
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _keys_beside(path, defaults)
        close = get_close_matches(str(path[-1]), known, n=1)
        few = f"; known here: {', '.join(known)}" if len(known) <= 12 else ""
        return "unknown key" + (f"; did you mean {close[0]}?" if close else few)
    if kind == "enum":
        choices = [word.strip(" '") for word in str(context.get("expected", "")).replace(" or ", ", ").split(",")]
        close = get_close_matches(str(detail["input"]), choices, n=1)
        return f"must be one of {', '.join(choices)}, not {given}" + (f"; did you mean {close[0]}?" if close else "")
    if kind == "string_pattern_mismatch":
        return "must start with a small letter and hold only small letters, digits, - and _"
    return plainly(detail)


def _keys_beside(path: KeyPath, defaults: Any) -> list[str]:
    """The keys the section of `path` knows; for an item of a list, which has no default, the keys of the whole file."""
    section = defaults
    for part in path[:-1]:
        section = section.get(part) if isinstance(section, dict) else None
    if isinstance(section, dict):
        return list(section)
    return sorted({key for definition in Policy.model_json_schema()["$defs"].values() for key in definition.get("properties", ())})


def _line(path: KeyPath, lines: Mapping[KeyPath, int]) -> int:
    """The line of the path, or of the nearest section around it (a missing key has no line of its own)."""
    while path not in lines:
        path = path[:-1]
    return lines[path]


def _dotted(path: KeyPath) -> str:
    return dotted(path) or "the file"


def _json(value: Any) -> str:
    """YAML has dates; JSON has not."""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
