"""What is shown of others' words holds no secret, wherever it stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.blackout import BLACKED_OUT, shown

SECRET = "hunter2-hunter2"
NAMES = ("password", "db_password", "API-Key", "apiKey", "Authorization", "access_token", "client_secret", "Set-Cookie", "credentials")
AROUND = st.recursive(
    st.just(SECRET),
    lambda inner: st.one_of(st.lists(inner, min_size=1, max_size=2), st.dictionaries(st.text(max_size=3), inner, min_size=1, max_size=2)),
    max_leaves=4,
)
TEXTS = (
    "curl -H 'Authorization: Bearer {}'",
    "https://ann:{}@example.com/x",
    "https://example.com/?a=1&access_token={}&b=2",
    '{{"settings": {{"password": "{}"}}}}',
    '{{\\"password\\": \\"{}\\"}}',
    "password = '{}'",
)


@given(st.sampled_from(NAMES), AROUND, st.lists(st.sampled_from(("a", "b")), max_size=4))
def test_whatever_stands_under_a_secret_name_is_blacked_out_however_deep(name: str, value: Any, path: list[str]) -> None:
    whole: Any = {name: value}
    for step in path:
        whole = {step: [whole]}
    said = json.dumps(shown(whole))
    assert SECRET not in said
    assert BLACKED_OUT in said


@pytest.mark.parametrize("text", TEXTS)
def test_a_secret_in_a_text_is_blacked_out(text: str) -> None:
    said = shown({"annotations": [text.format(SECRET)]})["annotations"][0]
    assert SECRET not in said
    assert BLACKED_OUT in said


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text("abc 1", max_size=9), lambda one: st.lists(one, max_size=3)))
def test_what_is_no_secret_stays(value: Any) -> None:
    assert shown({"labels": value}) == {"labels": value}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("hostile", ["a-" * 20_000, "token" * 8_000, "://" * 13_000, "token " * 7_000, "-----BEGIN PRIVATE KEY-----" * 500])
def test_hostile_text_keeps_nobody_waiting(hostile: str) -> None:
    shown({"x": hostile})
