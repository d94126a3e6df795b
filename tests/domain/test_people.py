"""Names that stand for a person."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.people import checked, looks_like, person_of

LEGITIMATE = (
    "Ann", "ann lee", "O'Brien", "d’Arc", "Jean-Luc Picard", "José Müller", "Zoë", "Łukasz", "Nguyễn Thị Ánh", "Søren Åberg", "Иван Петров",
    "Νίκος Παπαδόπουλος", "محمد علي", "שָׁלוֹם", "अनिता शर्मा", "சுப்ரமணியன்", "ณัฐพงษ์", "山田 太郎", "山田 Taro", "김철수", "王小明",
    "Հայկ", "გიორგი", "ml_team_lead", "ML Team Lead", "the lead", "ci-bot 2", "kim@example.com", "Kim (on call)", "Dr. Kim, Jr.",
)  # fmt: skip
UNSEEN = (
    "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u034f", "\u061c", "\u115f", "\u1160", "\u17b4", "\u180b", "\u180e",
    "\u2028", "\u202a", "\u202e", "\u2066", "\u206f", "\u2800", "\u3164", "\ufe00", "\ufe0f", "\uffa0", "\ufff9", "\ufffc", "\U0001d173",
    "\U000e0001",
    "\U000e0041", "\U000e0100", "\ue000", "\U000f0000", "\x00", "\x07", "\x1b", "\x7f", "\x85", "\n", "\r", "\u0378", "\ud800",
)  # fmt: skip
# Letters that look like Latin ones: Cyrillic, Greek, Armenian, Cherokee, Lisu, Coptic.
LOOK_ALIKE = {
    "A": "АΑᎪꓮ",
    "a": "а",
    "e": "е",
    "o": "оοօⲟ",
    "p": "рρ",
    "c": "сⲥ",
    "y": "у",
    "x": "х",
    "B": "ВΒᏴꓐ",
    "H": "НΗᎻ",
    "i": "і",
    "s": "ѕ",
}


@pytest.mark.parametrize("name", LEGITIMATE)
def test_a_persons_name_in_any_script_is_taken_as_it_is(name: str) -> None:
    assert checked(name, "name") == unicodedata.normalize("NFKC", name)


LETTERS = {
    "Latin": "abcdefghijklmnopqrstuvwxyzàâçéèêëîïôûüÿñæœßøåäöžščřďťňąęłńśźżğışőű",
    "Cyrillic": "абвгдеёжзийклмнопрстуфхцчшщъыьэюяґєії",
    "Greek": "αβγδεζηθικλμνξοπρστυφχψωάέήίόύώ",
    "Arabic": "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "Hebrew": "אבגדהוזחטיכלמנסעפצקרשת",
    "Devanagari": "अआइईउऊएकखगघचछजझटठडढणतथदधनपफबभमयरलवशषसह",
    "Hangul": "가나다라마바사아자차카타파하김이박최정",
    "Japanese": "山田太郎あいうえおカキクケコabc",
}


@given(st.data())
def test_any_name_of_one_script_with_hyphens_apostrophes_and_spaces_is_taken(data: st.DataObject) -> None:
    letters = LETTERS[data.draw(st.sampled_from(sorted(LETTERS)))]
    words = data.draw(st.lists(st.text(letters, min_size=1, max_size=12), min_size=1, max_size=3))
    joined = words[0] + "".join(data.draw(st.sampled_from([" ", "-", "'", "’", ". "])) + word for word in words[1:])
    name = data.draw(st.sampled_from([joined, joined.title(), joined.upper()]))
    assume(len(unicodedata.normalize("NFKC", name)) <= 100)
    assert person_of(checked(name, "name")) == person_of(name)


@given(name=st.sampled_from(LEGITIMATE), unseen=st.sampled_from(UNSEEN), data=st.data())
def test_a_character_that_nobody_sees_is_refused_wherever_it_stands(name: str, unseen: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(name) - 1))
    with pytest.raises(Invalid, match=r"^reportedBy: ") as refused:
        checked(name[:at] + unseen + name[at:], "reportedBy")
    assert refused.value.field == "reportedBy"


@given(st.sampled_from([(a, b) for a, many in LOOK_ALIKE.items() for b in many]))
def test_a_letter_of_another_script_is_refused_in_a_word_and_recognised_in_a_name_of_its_own(pair: tuple[str, str]) -> None:
    latin, other = pair
    with pytest.raises(Invalid, match="write it in one script"):
        checked(f"M{other}rk", "name")
    assert looks_like(f"{other}{other}", [f"{latin}{latin}"]) is not None


@pytest.mark.parametrize(
    ("name", "other"),
    [("1ead", "lead"), ("Iead", "lead"), ("THE IEAD", "the lead"), ("rnarie", "Marie".lower()), ("аре", "ape"), ("ВОВ", "BOB"),
     ("O’Brien", "O'Brien"), ("Bi\u0307ll", "Bill"), ("Anj\u0307a", "Anja"), ("Jean‐Luc", "Jean-Luc"), ("Jean–Luc", "Jean-Luc")],
)  # fmt: skip
def test_a_name_that_a_reader_would_take_for_another_is_recognised(name: str, other: str) -> None:
    assert looks_like(name, ["somebody", other]) == other
    assert looks_like(other, ["somebody", name]) == name


@pytest.mark.parametrize(
    ("name", "other"), [("Ann", " ANN "), ("Jose", "José"), ("the lead", "the manager"), ("Kim", "Kai"), ("김철수", "김철호")]
)
def test_the_same_persons_name_and_a_different_one_are_mistaken_for_nobody(name: str, other: str) -> None:
    assert looks_like(name, [other]) is None


@pytest.mark.parametrize("name", ["", " ", "\u0301", "---", "..", "a\u0300\u0301\u0302\u0303\u0304", "x" * 101])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match=r"^name: "):
        checked(name, "name")


@given(st.sampled_from(["Ann Lee", " ann  lee ", "ANN LEE", "Ａｎｎ Lee", "Ann\u00a0Lee", "𝐀nn Lee"]))
def test_one_person_has_one_id_however_the_name_is_written(name: str) -> None:
    assert person_of(name) == "ann lee"
