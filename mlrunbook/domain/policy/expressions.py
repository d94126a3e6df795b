"""JMESPath expressions of a policy: checked when it is loaded, and evaluated on a stranger's message in a bounded number of steps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from jmespath import exceptions, functions
from jmespath.parser import ParsedResult, Parser
from jmespath.visitor import TreeInterpreter

MAX_CHARS = 2_000
_DIGITS = re.compile(r"\.(\d+)")
_ODD_KEY = re.compile(r"[A-Za-z_][\w]*(?:[-/:@$][\w]+)+")


class Unreadable(Exception):
    """An expression does not apply to what a message holds. The text says why."""


class TooMuch(Unreadable):
    """It would take too many steps."""


class Steps:
    """How much work may still be done: about a microsecond each."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise TooMuch("it takes too many steps to read")


class _Functions(functions.Functions):
    """Those of JMESPath, and `pairs`."""

    @functions.signature({"types": ["array", "null"]}, {"types": ["string"]}, {"types": ["string"]})
    def _func_pairs(self, listed: Sequence[Any] | None, name: str, value: str) -> dict[str, Any] | None:
        """`pairs([{"name": "Endpoint", "value": "x"}], 'name', 'value')` is `{"Endpoint": "x"}`; the first of a name counts."""
        if listed is None:
            return None
        found: dict[str, Any] = {}
        for one in listed:
            if isinstance(one, dict) and isinstance(key := one.get(name), str):
                found.setdefault(key, one.get(value))
        return found


_FUNCTIONS = _Functions()


class _Interpreter(TreeInterpreter):
    """Pays for every node, and for whatever a function looks at or a multiselect repeats: the only ways to make much out of little."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self._functions, self._steps = _FUNCTIONS, steps

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self._steps.spend(1)
        return super().visit(node, *args, **kwargs)

    def visit_function_expression(self, node: Any, value: Any) -> Any:
        given = [self.visit(child, value) for child in node["children"]]
        self._pay(given)
        return self._functions.call_function(node["value"], given)

    def visit_multi_select_list(self, node: Any, value: Any) -> Any:
        return self._pay(super().visit_multi_select_list(node, value))

    def visit_multi_select_dict(self, node: Any, value: Any) -> Any:
        return self._pay(super().visit_multi_select_dict(node, value))

    def _pay(self, made: Any) -> Any:
        for size in _sizes(made):
            self._steps.spend(size)
        return made


def _sizes(value: Any) -> Iterator[int]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        yield 1 + len(one) // 64 if isinstance(one, str) else 1
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            waiting += one.values()


@lru_cache(maxsize=1024)
def compiled(expression: str) -> ParsedResult:
    """ValueError, with what to write instead, where it is no JMESPath expression."""
    if len(expression) > MAX_CHARS:
        raise ValueError(f"an expression may have {MAX_CHARS} characters; this one has {len(expression)}")
    try:
        parsed = Parser().parse(expression)
    except (exceptions.JMESPathError, ValueError, RecursionError) as error:
        raise ValueError(f"{expression[:100]!r} is no JMESPath expression: {_what(error)}{_hint(expression)}") from error
    for node in nodes(parsed.parsed):
        if node["type"] == "function_expression":
            _check_call(node["value"], len(node["children"]))
    return parsed


def search(expression: str, value: Any, steps: Steps) -> Any:
    """What the expression picks out of the value; None where there is no such thing. Unreadable where it does not apply."""
    try:
        return _Interpreter(steps).visit(compiled(expression).parsed, value)
    except exceptions.JMESPathTypeError as error:
        raise Unreadable(f"{error.function_name}() cannot take {_shown(error)}") from error
    except (exceptions.JMESPathError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise Unreadable(f"it does not apply to this message ({type(error).__name__})") from error


def path_of(expression: str) -> tuple[str, ...]:
    """The keys of a plain path such as `Message.detail` or `"a.b".c`; ValueError where it is more than that."""
    names = list[str]()
    for node in nodes(compiled(expression).parsed):
        if node["type"] == "field":
            names.append(node["value"])
        elif node["type"] != "subexpression":
            raise ValueError(f"{expression[:100]!r} must be a plain path, as in Message or detail.text")
    return tuple(names)


def nodes(tree: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All nodes of an expression, from left to right."""
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):  # a slice has numbers for children
            yield node
            waiting += reversed(node["children"])


def _check_call(name: str, given: int) -> None:
    if (known := _FUNCTIONS.FUNCTION_TABLE.get(name)) is None:
        raise ValueError(f"there is no function {name}(); there are {', '.join(sorted(_FUNCTIONS.FUNCTION_TABLE))}")
    wanted, variadic = len(known["signature"]), bool(known["signature"] and known["signature"][-1].get("variadic"))
    if given < wanted or (given > wanted and not variadic):
        raise ValueError(f"{name}() takes {'at least ' * variadic}{wanted} argument{'s' * (wanted != 1)}, not {given}")


def _what(error: Exception) -> str:
    if isinstance(error, exceptions.EmptyExpressionError):
        return "it is empty"
    if isinstance(error, exceptions.LexerError):
        return f"{error.token_value!r} at column {error.lexer_position + 1} is not allowed there"
    if isinstance(error, exceptions.ParseError):
        if error.lex_position >= len(error.expression or ""):
            return "it ends too early"
        return f"{error.token_value!r} at column {error.lex_position + 1} is not allowed there"
    return "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]


def _hint(expression: str) -> str:
    if digits := _DIGITS.search(expression):
        return f"; write [{digits[1]}] instead of .{digits[1]} to pick from a list"
    if odd := _ODD_KEY.search(expression):
        return f'; a key with other characters than letters, digits and _ stands in double quotes: "{odd[0]}"'
    return ""


def _shown(error: exceptions.JMESPathTypeError) -> str:
    wanted = " or ".join(error.expected_types)
    return f"{error.actual_type}, only {wanted}"
