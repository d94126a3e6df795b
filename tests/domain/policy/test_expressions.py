"""The expressions of a mapping: what is wrong with one is said when the policy is loaded, and no message makes one run away."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.base.policy_file import parse, warnings_of
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.policy.expressions import Steps, TooMuch, Unreadable, compiled, path_of, search

MANY = 100_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=20,
)
EXPRESSIONS = (
    *(
        "a",
        "a.b.c",
        "[]",
        "a[*].b",
        "a[?b == 'x'].c | [0]",
        "a[?b > `1`]",
        "pairs(a, 'b', 'c').x",
        "join(', ', a)",
        "sort(a)",
        "max_by(a, &b)",
    ),
    *("a < b", "avg(a)", "to_number(a)", "to_string(@)", "merge(a, b)", "values(@)[]", "a[::-1]", "map(&b, a)", "starts_with(a, b)", "!a"),
)


@pytest.mark.parametrize(
    ("expression", "value", "found"),
    [
        ("pairs(dims, 'name', 'value').Endpoint", {"dims": [{"name": "Variant", "value": "all"}, {"value": "x", "name": "Endpoint"}]}, "x"),
        ("pairs(dims, 'name', 'value').Endpoint", {}, None),
        ("pairs(dims, 'k', 'v').Endpoint", {"dims": ["no pair", {"k": 1, "v": 2}, {"k": "Endpoint"}]}, None),
        ("tags[?[0] == 'model'] | [0] | [1]", {"tags": [["os", "linux"], ["model", "x"]]}, "x"),
        ('labels."app.kubernetes.io/name"', {"labels": {"app.kubernetes.io/name": "x"}}, "x"),
        ("items[0].name || title", {"title": "x", "items": []}, "x"),
    ],
)
def test_what_stands_anywhere_in_a_message_is_reached(expression: str, value: Any, found: Any) -> None:
    assert search(expression, value, Steps(MANY)) == found


@given(st.sampled_from(EXPRESSIONS), JSON)
def test_whatever_the_message_holds_an_expression_ends_or_says_that_it_does_not_apply(expression: str, value: Any) -> None:
    steps = Steps(MANY)
    with contextlib.suppress(Unreadable):
        search(expression, value, steps)
    assert steps.left > 0


@pytest.mark.parametrize(
    "expression",
    [
        " | ".join(["[@, @]"] * 60 + ["to_string(@)"]),
        " | ".join(["[@, @]"] * 60 + ["@ == @"]),
        " | ".join(["[@, @][]"] * 60),
        " | ".join(["join('', [@, @])"] * 60),
        " | ".join(["{a: @, b: @}"] * 60 + ["to_string(@)"]),
        "a" + " | map(&[@, @], @)[]" * 60,
    ],
)
def test_no_expression_makes_much_out_of_little(expression: str) -> None:
    with pytest.raises(TooMuch):
        search(expression, {"a": ["x"]} if expression.startswith("a") else "x", Steps(MANY))


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("alerts.0.name", "[0]"),
        ("labels.service-name", '"service-name"'),
        ("labels.", "ends too early"),
        ("mdoel(x)", "no function mdoel()"),
        ("pairs(dims)", "takes 3 arguments, not 1"),
        ("join(',')", "takes 2 arguments, not 1"),
        ("(" * 1_500, "nested too deeply"),
        ("a" * 3_000, "2000 characters"),
    ],
)
def test_what_is_no_expression_is_an_error_of_the_policy_that_names_the_field(expression: str, said: str) -> None:
    text = f"intake:\n  generic:\n    watch:\n      level: severity\n      model: '{expression.replace(chr(39), chr(39) * 2)}'"
    with pytest.raises(Invalid, match=r"runbook.yaml:5: intake.generic.watch.model") as error:
        parse(text)
    assert said in str(error.value)


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(Invalid) as error:
        parse("intake:\n  generic:\n    watch:\n      model: 'a['\n      name: 'b['\n      json_in: ['c[0]']")
    assert [line.partition(": ")[2].partition(":")[0] for line in str(error.value).splitlines()] == [
        "intake.generic.watch.model",
        "intake.generic.watch.name",
        "intake.generic.watch.json_in[0]",
    ]


def test_a_mapping_needs_a_name_that_fits_into_an_address() -> None:
    for name in ("Big", "a/b", "a b", "'1'", "a_b", "x" * 41):
        with pytest.raises(Invalid, match="no name for a mapping"):
            parse(f"intake: {{generic: {{{name}: {{model: m}}}}}}")
    assert parse("intake: {generic: {azure-monitor: {model: m}}}").intake.generic["azure-monitor"].model == "m"


def test_a_policy_with_one_mapping_without_a_name_is_read_as_the_default_one_and_the_check_says_what_to_write() -> None:
    old = "intake:\n  generic:\n    model: tags.model\n    firing: [bad]"
    assert parse(old) == parse("intake:\n  generic:\n    default:\n      model: tags.model\n      firing: [bad]")
    (said,) = warnings_of(old)
    assert said.startswith("runbook.yaml:2: intake.generic: model, firing")
    assert warnings_of("intake: {generic: {model: {status: state}, watch: {model: m}}}") == [], "a mapping may be called as a field is"


def test_a_plain_path_has_only_keys() -> None:
    assert path_of('Message."a.b".c') == ("Message", "a.b", "c")
    for other in ("a[0]", "a[*].b", "a || b", "to_string(a)", "'a'"):
        with pytest.raises(ValueError, match="plain path"):
            path_of(other)


def test_an_expression_is_compiled_once() -> None:
    assert compiled("a.b.c") is compiled("a.b.c")
