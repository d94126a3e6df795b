"""Names that stand for a person: what they may be written with, whom they name, and whose name they could be mistaken for.

By Unicode Technical Standard 39: a name is written in one script (its "highly restrictive" level, with which Japanese, Korean and Chinese
names may hold Latin letters), without characters that nobody sees; two names with one skeleton look alike. What is missed: names that
only some fonts draw alike, and a letter with a mark that looks like none (l against ł).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from mlrunbook.domain.errors import Invalid

MAX_NAME = 100
MAX_MARKS = 4  # on one letter; Vietnamese and Hebrew need up to three
_UNSEEN_CATEGORIES = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
# Letters and marks that draw nothing: Default_Ignorable_Code_Point of Unicode beyond category Cf, and the blanks among the symbols.
_BLANKS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\ufffc\ufffd\U00016fe4\U0001d159\U000e0100-\U000e01ef]"
)
_WRITTEN_TOGETHER = (  # UTS 39, section 5.2
    frozenset({"LATIN", "HAN", "HIRAGANA", "KATAKANA"}),
    frozenset({"LATIN", "HAN", "BOPOMOFO"}),
    frozenset({"LATIN", "HAN", "HANGUL"}),
)
_ANY_SCRIPT = frozenset({"COMMON", "INHERITED"})
_LTR = "\u200e"
_SECOND_DOT = re.compile("([ij\u0131\u0237])\u0307")  # drawn as the letter with the dot it has anyway


def person_of(name: str) -> str:
    """The person a name stands for: the same for " ANN  Lee", "Ann Lee" and the full-width form of it.

    >>> person_of("  Ann  LEE ")
    'ann lee'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(folded.split())


def checked(name: str, field: str) -> str:
    """The name as it is kept: compatibility forms unified, single spaces. Invalid, with the field, where it could deceive."""
    kept = " ".join(unicodedata.normalize("NFKC", name).split())
    for text in (name.strip(), kept):
        if wrong := _fault(text):
            raise Invalid(f"{field}: {wrong}", field=field)
    return kept


def _fault(name: str) -> str | None:
    if len(name) > MAX_NAME:
        return f"{len(name)} characters are too many for a name: {MAX_NAME} at most"
    for at, char in enumerate(name):
        if unicodedata.category(char) in _UNSEEN_CATEGORIES or _BLANKS.match(char):
            return f"character {at + 1} (U+{ord(char):04X}) cannot be seen: type the name again, without pasting it"
    if not any(unicodedata.category(c)[0] in "LN" for c in name):
        return "a name has at least one letter"
    return _piled_marks(name) or _mixed_scripts(name)


def _piled_marks(name: str) -> str | None:
    """A mark without a letter, the same mark twice, or a pile of them."""
    marks: list[str] = []
    before = " "
    for char in unicodedata.normalize("NFD", name):
        if not unicodedata.combining(char) and unicodedata.category(char) != "Me":
            marks, before = [], char
            continue
        if unicodedata.category(before)[0] not in "LMN":
            return f"a combining mark (U+{ord(char):04X}) has no letter before it: type the name again"
        if char in marks or len(marks) == MAX_MARKS:
            return f"too many marks on one letter (U+{ord(char):04X}): type the name again"
        marks.append(char)
    return None


def _mixed_scripts(name: str) -> str | None:
    from confusable_homoglyphs import categories  # it reads its tables when it is imported

    scripts = {script for char in name if (script := categories.alias(char)) not in _ANY_SCRIPT}
    if len(scripts) < 2 or any(scripts <= together for together in _WRITTEN_TOGETHER):
        return None
    return f"it mixes {' and '.join(sorted(s.capitalize() for s in scripts))} letters, some of which look alike: write it in one script"


def looks_like(name: str, others: Iterable[str]) -> str | None:
    """The first of the other names that a reader could take `name` for; not the same person's own, in whatever case."""
    person, looks = person_of(name), _looks(name)
    return next((other for other in others if person_of(other) != person and looks & _looks(other)), None)


def _looks(name: str) -> frozenset[str]:
    """The skeletons of a name in small letters, and as it is written, where a capital I is an l to the eye."""
    return frozenset({_skeleton(person_of(name)), _skeleton(person_of(_skeleton(name)))})


def _skeleton(text: str) -> str:
    """UTS 39, section 4: every character by the one that stands for all that look like it."""
    spelt = "".join(_prototype(c) for c in _SECOND_DOT.sub(r"\1", unicodedata.normalize("NFD", text)))
    return unicodedata.normalize("NFD", spelt)


@lru_cache(maxsize=4096)
def _prototype(char: str) -> str:
    """What stands for the character. The library keeps each pair of the standard's table in both directions, so that what looks like one
    other stands for that, and what many look like for itself; characters of a script from right to left stand between marks there."""
    from confusable_homoglyphs.confusables import confusables_data

    pairs = confusables_data.get(char) or confusables_data.get(f"{_LTR}{char}{_LTR}") or []
    if len(pairs) != 1:
        return char
    other = str(pairs[0]["c"]).strip(_LTR)
    if len(other) > 1:
        return "".join(_prototype(c) for c in other)
    return other if len(confusables_data.get(other, ())) > 1 else min(char, other)
