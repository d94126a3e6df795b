"""Where each value comes from that holds for one model: a line of the policy file, or a built-in default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from mlrunbook.base.policy_file import lines_of
from mlrunbook.domain.policy.owned import OWN_SECTIONS, ModelRules
from mlrunbook.domain.policy.patterns import fitting
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.policy.policy_warnings import KeyPath

BUILT_IN = "built-in default"
WIDTH = 78
_OF_A_MODEL = ("owner", "feeds", "channels", "cluster", "platform")


@dataclass(frozen=True)
class Origin:
    """One value. `line` None: nobody wrote it. `of`: the name or pattern of `models` that it stands under; "": the top of the file."""

    at: KeyPath
    value: Any
    line: int | None = None
    of: str = ""

    def where(self, file: str) -> str:
        if self.line is None:
            return BUILT_IN
        return f"{file}:{self.line}" + (f" models.{self.of}" if self.of else "")


def origins(policy: Policy, lines: Mapping[KeyPath, int], model: str) -> Iterator[Origin]:
    """Every value that holds for the model: first what `models` alone can say, below "model", then the sections of the policy."""
    names = fitting(model, policy.models)
    rules = _rules(policy, model)
    for key in _OF_A_MODEL:
        for at, value in _leaves(rules[key], (key,)) if rules[key] else ():
            found = _found(at, value, lines, names)
            yield Origin(("model", *at), found.value, found.line, found.of)
    usual = dict(_leaves(_sections(policy), ()))
    for at, value in _leaves(_sections(policy.for_model(model)), ()):
        found = _found(at, value, lines, names if at[0] in (*OWN_SECTIONS, "mode") else [])
        yield found if found.of or value == usual.get(at) else _through(found, usual[at], rules["channels"], lines, names)


def _sections(policy: Policy) -> dict[str, Any]:
    return policy.model_dump(mode="json", exclude={"models", "cluster", "connections"})


def _through(one: Origin, usual: Any, stand_ins: Mapping[str, str], lines: Mapping[KeyPath, int], names: list[str]) -> Origin:
    """What is reached by another channel than usual: where it says so."""
    for name in names:
        for channel, stands_in in stand_ins.items():
            line = lines.get(("models", name, "channels", channel))
            if line is not None and channel in usual and stands_in in one.value:
                return Origin(one.at, one.value, line, name)
    return one


def _rules(policy: Policy, model: str) -> dict[str, Any]:
    """As plain values."""
    dumped: dict[str, Any] = TypeAdapter(ModelRules).dump_python(policy.rules_of(model), mode="json")
    return dumped | {"channels": dumped["channels"] or {}}


def _leaves(value: Any, at: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*at, key))
    else:
        yield at, value


def _found(at: KeyPath, value: Any, lines: Mapping[KeyPath, int], names: list[str]) -> Origin:
    for name in names:
        for path in (at, ("feature_views",)) if at == ("features", "views") else (at,):
            if (line := lines.get(("models", name, *path))) is not None:
                return Origin(at, value, line, name)
    return Origin(at, value, lines.get(at))


def shown(policy: Policy, path: Path | None, model: str, *, everything: bool) -> str:
    """The policy of one model as YAML, each value with where it comes from. Without `everything`: what is the model's own, and what differs
    from the built-in defaults."""
    lines = lines_of(path) if path else {}
    file = path.name if path else "no file"
    built_in = dict(_leaves(Policy().model_dump(mode="json"), ()))
    found = list(origins(policy, lines, model))
    if not everything:
        found = [one for one in found if one.of or one.at not in built_in or not _same(built_in[one.at], one.value)]
    head = [f"# {model}: {file}, by {', '.join(fitting(model, policy.models)) or 'no entry of models'}"]
    if not everything:
        head.append("# The rest is as built in, see --all")
    return "\n".join([*head, *_yaml(found, file)]) + "\n"


def _same(one: Any, other: Any) -> bool:
    """Sets come as lists in any order."""
    return one == other or (isinstance(one, list) and isinstance(other, list) and sorted(map(str, one)) == sorted(map(str, other)))


def _yaml(found: list[Origin], file: str) -> Iterator[str]:
    open_: KeyPath = ()
    for one in found:
        for depth, key in enumerate(one.at[:-1]):
            if one.at[: depth + 1] != open_[: depth + 1]:
                yield f"{'  ' * depth}{_flow(key)}:"
        open_ = one.at[:-1]
        key, indent = one.at[-1], "  " * (len(one.at) - 1)
        text, comment = f"{indent}{_flow(key)}: {_flow(one.value)}", f"# {one.where(file)}"
        if len(text) + len(comment) + 2 <= WIDTH:
            yield f"{text}  {comment}"
        else:
            yield f"{indent}{comment}"
            yield from _wrapped(text, indent)


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")


def _wrapped(text: str, indent: str) -> Iterator[str]:
    """A long list, over lines that YAML reads as one."""
    line = ""
    for word in text.strip().split(" "):
        if line.strip() and len(line) + 1 + len(word) > WIDTH:
            yield line
            line = f"{indent}    {word}"
        else:
            line = f"{line} {word}" if line else f"{indent}{word}"
    yield line
