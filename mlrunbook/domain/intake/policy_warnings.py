"""What is probably a mistake in how the policy reads alerts: lines and words that can never count. See `policy.policy_warnings`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches

from mlrunbook.domain.intake.classification import line_for
from mlrunbook.domain.intake.words import plain
from mlrunbook.domain.policy.intake import LEVELS, MAIL, OWN, VERSION_OF_TYPE
from mlrunbook.domain.policy.patterns import covers, is_pattern
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.policy.policy_warnings import Doubt, KeyPath

# What people write who think of regular expressions, or of the braces and brackets of a shell. A dot before a star is natural where names
# have dots in them, as the types of events do.
_CLASSES = r"\[\^?[^\]\s]*\w-\w[^\]]*\]|\[[^\]]+\][+*?{]|\\[dwsbDWSB.]|\([^()]*\|[^()]*\)|^\^|\$$|\{[^{}\s]*,[^{}]*\}"
_EXPRESSION = re.compile(rf"\.[*+]|{_CLASSES}")
_EXPRESSION_WITH_DOTS = re.compile(rf"\.\+|{_CLASSES}")
_FILLERS = ("", "x", " - ")  # for what is wild in a title: joined to its neighbours, and apart from them


def doubts(policy: Policy) -> list[Doubt]:
    looks = (_trust, _models, _levels, _states, _alert_types, _events)
    return [doubt for look in looks for doubt in look(policy)]


def _trust(policy: Policy) -> Iterator[Doubt]:
    trust = policy.intake.trusted_for
    for kind, senders in (("containment", trust.containment), ("isolation", trust.isolation)):
        at = ("intake", "trusted_for", kind)
        if MAIL in senders:
            yield Doubt(at, f"trusts {MAIL}: its token passes through other people's servers; leave it out, or know all of them")
        if OWN not in senders:
            yield Doubt(at, f"leaves out {OWN}: what its own monitor and platform find waits for a person then")


def _models(policy: Policy) -> Iterator[Doubt]:
    """Each line against those above it, and its model against those that policy names."""
    lines = list(policy.intake.models)
    for n, line in enumerate(lines):
        at, (label, _, value) = ("intake", "models", line), line.partition(":")
        if not label.strip() or not value.strip() or label != label.strip() or value != value.strip():
            yield Doubt(at, "never fits: write the label and its value without spaces around the colon, as in 'service:Pump API'")
        elif first := next((above for above in lines[:n] if covers(above, line)), None):
            yield Doubt(at, f"never counts: the line {first!r} above it takes what it says; put it first")
        elif said := _meant_otherwise(label, _EXPRESSION) or _meant_otherwise(value, _EXPRESSION):
            yield Doubt(at, said)
        yield from _target(policy, at, policy.intake.models[line])


def _target(policy: Policy, at: KeyPath, model: str) -> Iterator[Doubt]:
    """Only where `models:` says which models there are: elsewhere the registry does."""
    named = [*policy.models, *policy.cluster.models, *([policy.cluster.default_model] if policy.cluster.default_model else [])]
    if not policy.models or any(covers(name, model) for name in named):
        return
    close = get_close_matches(model, [name for name in named if not is_pattern(name)], n=1, cutoff=0.6)
    meant = f"did you mean {close[0]}?" if close else f"name it there, if {model} is a model"
    yield Doubt(at, f"leads to {model}, which `models:` does not name; {meant}")


def _levels(policy: Policy) -> Iterator[Doubt]:
    at, levels = ("intake", "levels"), policy.intake.levels
    yield from _words(at, levels)
    reached = {plain(word): level for level, listed in levels.items() for word in listed if plain(word)}
    for level in LEVELS:
        if level not in reached.values():
            yield Doubt((*at, level), f"no word leads to {level}: no alert is ever graded so; list the senders' words for it")


def _states(policy: Policy) -> Iterator[Doubt]:
    states = policy.intake.states
    yield from _words(("intake", "states"), {"firing": states.firing, "resolved": states.resolved, "ignored": states.ignored})


def _words(at: KeyPath, words: Mapping[str, Sequence[str]]) -> Iterator[Doubt]:
    """Of a word that is listed twice the last one counts."""
    places: dict[str, tuple[str, int, str]] = {}
    for meaning, listed in words.items():
        for n, word in enumerate(listed):
            if not (key := plain(word)):
                yield Doubt((*at, meaning, n), "never fits: it has neither a letter nor a digit")
                continue
            if key in places:
                earlier, place, spelled = places[key]
                twice = f"is {spelled!r} once more: spelling does not matter; keep one"
                other = f"never counts: {meaning} lists {word!r} too, and that counts; take one of them out"
                yield Doubt((*at, meaning, n), twice) if earlier == meaning else Doubt((*at, earlier, place), other)
            places[key] = (meaning, n, word)


def _alert_types(policy: Policy) -> Iterator[Doubt]:
    for name in policy.alert_types:
        at = ("alert_types", name)
        if not name.strip() or name != name.strip():
            yield Doubt(at, "never fits: there is a space around it" if name.strip() else "never fits: it is empty; name the alert")
        elif said := _meant_otherwise(name, _EXPRESSION):
            yield Doubt(at, said)
        elif is_pattern(name) and (first := _takes_all_of(name, policy)):
            yield Doubt(at, f"never counts: {first} takes every title that it fits; make it more specific, or take it out")


def _takes_all_of(pattern: str, policy: Policy) -> str | None:
    """The lines that take what the pattern fits, where none of it is left."""
    found = [line_for(pattern.replace("?", "x").replace("*", filler), policy.alert_types) for filler in _FILLERS]
    return None if pattern in found else next(filter(None, found), None)


def _events(policy: Policy) -> Iterator[Doubt]:
    """The first list that fits counts, and in it the first pattern."""
    at, events = ("intake", "cloudevents"), policy.intake.cloudevents
    lines: list[tuple[KeyPath, str]] = [((*at, "alerts", n), one) for n, one in enumerate(events.alerts)]
    lines += [((*at, "changes", one), one) for one in events.changes]
    lines += [((*at, "ignored", n), one) for n, one in enumerate(events.ignored)]
    yield from _event_lines(lines)


def _event_lines(lines: Sequence[tuple[KeyPath, str]]) -> Iterator[Doubt]:
    for n, (at, line) in enumerate(lines):
        folded = line.casefold()
        if not line.strip() or line != line.strip():
            yield Doubt(at, "never fits: no type of an event is empty or has a space around it")
        elif VERSION_OF_TYPE.search(line):
            yield Doubt(at, "never fits: a type is compared without the version that it ends in; leave the version out")
        elif first := _first_to_cover(folded, (above for _, above in lines[:n])):
            yield Doubt(at, f"never counts: {first!r} takes what it says, and is asked before; make that one narrower, or take this out")
        elif said := _meant_otherwise(line, _EXPRESSION_WITH_DOTS):
            yield Doubt(at, said)


def _first_to_cover(line: str, above: Iterable[str]) -> str | None:
    return next((one for one in above if covers(one.casefold(), line)), None)


def _meant_otherwise(text: str, expression: re.Pattern[str]) -> str | None:
    if found := expression.search(text):
        return f"{found[0]} is taken as it stands, this is no regular expression: only * (any text) and ? (one character) are wild"
    return None
