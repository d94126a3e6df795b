"""What is probably a mistake in a policy that is valid: the policy holds as it is, and `mlrunbook policy check` warns.

What makes a policy wrong is an error, see `policy`; here stands what somebody may want, and hardly ever does. The built-in defaults give no
warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, NamedTuple

from mlrunbook.domain.people import person_of
from mlrunbook.domain.policy.alerting import Silence
from mlrunbook.domain.policy.connections import UNDECIDED
from mlrunbook.domain.policy.intake import MODEL_ID
from mlrunbook.domain.policy.judging import DropPolicy
from mlrunbook.domain.policy.patterns import is_pattern
from mlrunbook.domain.policy.people import UNNAMED, Responder
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role

KeyPath = tuple[str | int, ...]


class Doubt(NamedTuple):
    """Where, and what is doubtful about it and what to do, in a sentence."""

    at: KeyPath
    said: str


def doubts(policy: Policy) -> list[Doubt]:
    """All of them, section by section."""
    return [
        doubt
        for look in (_limits, _approvers, _nobody_is_reached, _placeholders, _addresses, _secrets, _never_match, _undecided)
        for doubt in look(policy)
    ]


# --- limits that should be in order ---------------------------------------------------------------------------------------------


class _Ordered(NamedTuple):
    """`lower` should not be above `upper`, once multiplied by `factor`."""

    lower: str
    upper: str
    so: str
    factor: float = 1.0


_ORDERED = (
    _Ordered("severity.error_rate", "severity.outage_error_rate", "every error rate that counts is an outage, and critical"),
    _Ordered("recovery.tolerance", "severity.drops.metrics.f1.medium", "F1 counts as recovered while it still counts as fallen"),
    _Ordered("drift.effect_floor", "alerts.drift_effect", "drift raises an alert that the investigation then finds too small to matter"),
    _Ordered("alerts.f1_drop_warning", "severity.drops.metrics.f1.medium", "a drop that counts as an incident raises no alert"),
    _Ordered("alerts.f1_drop_critical", "severity.drops.metrics.f1.high", "a drop that is graded high raises no critical alert"),
    _Ordered(
        "alerts.precision_drop_warning", "severity.drops.metrics.precision.medium", "a drop that counts as an incident raises no alert"
    ),
    _Ordered("alerts.recall_drop_warning", "severity.drops.metrics.recall.medium", "a drop that counts as an incident raises no alert"),
    _Ordered("alerts.null_rate_warning", "severity.null_rate", "a null rate that counts as an incident raises no alert"),
    _Ordered("alerts.error_rate_warning", "severity.error_rate", "an error rate that counts as an incident raises no alert"),
    _Ordered("alerts.latency_warning_s", "severity.latency_p95_ms", "a latency that counts as an incident raises no alert", 1000),
    _Ordered("alerts.flagged_share_critical", "severity.all_flagged", "a share that counts as all assets raises no alert"),
    _Ordered("communication.review_remind_before_h", "communication.review_due_h", "the reminder is due before the review can be"),
    _Ordered("recovery_watch.confirm_after_min", "recovery_watch.confirm_for_min", "the recovery is given up before it is confirmed"),
    _Ordered("recovery_watch.check_every_s", "recovery_watch.give_up_after_min", "the recovery is given up after one look", 1 / 60),
    _Ordered("audits.token_unused_days", "audits.token_max_age_days", "a token is too old before it is called unused"),
)
_LADDER = (Role.ONCALL_ML_ENGINEER, Role.ML_TEAM_LEAD, Role.ENGINEERING_MANAGER, Role.VP_ENGINEERING)


def _limits(policy: Policy) -> Iterator[Doubt]:
    yield from _metric_rules(policy.severity.drops)
    for pair in _ORDERED:
        (low_at, low), (high_at, high) = _find(policy, pair.lower), _find(policy, pair.upper)
        if low is not None and high is not None and low * pair.factor > high:
            yield Doubt(low_at, f"{low:g} is above {dotted(high_at)} ({high:g}): {pair.so}; lower it, or raise the other")
    looking_s = (policy.triage.looks - 1) * policy.triage.seconds_between_looks
    if looking_s > policy.triage.page_anyway_after_s:
        why = (
            f"the page goes out before triage has looked {policy.triage.looks} times, which takes {looking_s:g} s; raise it, or look faster"
        )
        yield Doubt(("triage", "page_anyway_after_s"), why)
    yield from _ladder(policy)


def _ladder(policy: Policy) -> Iterator[Doubt]:
    for first, then in pairwise(_LADDER):
        one, next_one = policy.escalation.of(first), policy.escalation.of(then)
        if one.after_min is not None and next_one.after_min is not None and next_one.after_min < one.after_min:
            why = f"{then.words} is paged before {first.words} ({one.after_min} min): the escalation path goes the other way"
            yield Doubt(("escalation", then.value, "after_min"), why)
        if next_one.at_once_from and one.at_once_from and not next_one.at_once_from.at_least(one.at_once_from):
            why = f"{then.words} is paged at once from {next_one.at_once_from} on, {first.words} only from {one.at_once_from} on"
            yield Doubt(("escalation", then.value, "at_once_from"), why)


def _metric_rules(drops: DropPolicy) -> Iterator[Doubt]:
    for i, rule in enumerate(drops.metrics):
        if rule.high is not None and rule.medium > rule.high:
            at = (*_METRICS, i, "high")
            why = f"{rule.medium:g} is above {dotted(at)} ({rule.high:g}): no drop of {rule.name} is ever graded medium"
            yield Doubt((*_METRICS, i, "medium"), f"{why}; lower it, or raise the other")


_METRICS: KeyPath = ("severity", "drops", "metrics")


def _find(policy: Policy, name: str) -> tuple[KeyPath, float | None]:
    """The key path of a limit, and its value. A rule of a metric goes by its name; None without one."""
    at: KeyPath = ()
    found: Any = policy
    for key in name.split("."):
        if isinstance(found, tuple):
            place = next((i for i, rule in enumerate(found) if rule.name == key), None)
            if place is None:
                return at, None
            at, found = (*at, place), found[place]
        else:
            at, found = (*at, key), getattr(found, key)
    return at, None if found is None else float(found)


def dotted(path: KeyPath) -> str:
    """As people write it: severity.drops.metrics[0].medium."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


# --- approvals that nobody can give ----------------------------------------------------------------------------------------------


def _approvers(policy: Policy) -> Iterator[Doubt]:
    """A role that policy names one person for counts as that person; who has a token is not known here."""
    for kind in type(policy.approvals).model_fields:
        rule, at = getattr(policy.approvals, kind), ("approvals", kind)
        holders = {person_of(name) if (name := policy.escalation.of(role).name) != UNNAMED else role.value for role in rule.roles}
        may = len(holders) - (1 if rule.excludes_requester else 0)
        if rule.count > 1 and may < rule.count:
            without = " once whoever asked for the plan is left out" if rule.excludes_requester and len(holders) >= rule.count else ""
            why = f"{rule.count} people must approve, and its roles have {max(may, 0)} holder(s){without} where each role is held by one"
            yield Doubt((*at, "roles"), f"{why}; add a role, or be sure that more people hold one")
        if rule.count == 1 and rule.not_by_requester and may < 1:
            why = f"whoever asked for the plan may not approve it, and only {' or '.join(rule.roles)} may: nobody is left"
            yield Doubt((*at, "not_by_requester"), f"{why} where that role is held by one person; add a role")
        if rule.count > 1 and rule.accept_prefect_form:
            why = "who has a token and Prefect's login can give two of the approvals alone, under another name in the form"
            yield Doubt((*at, "accept_prefect_form"), f"{why}; set it to false where {rule.count} people are to agree")


# --- nobody is reached ----------------------------------------------------------------------------------------------------------


def _nobody_is_reached(policy: Policy) -> Iterator[Doubt]:
    deciding = {role: f"approvals.{kind}" for kind in type(policy.approvals).model_fields for role in getattr(policy.approvals, kind).roles}
    for role in Role:
        responder = policy.escalation.of(role)
        if responder.channels:
            continue
        paged, at = _is_paged(responder), ("escalation", role.value, "channels")
        if paged or role in deciding:
            what = "is to be paged" if paged else f"is asked to decide ({deciding[role]})"
            otherwise = ", or set after_min and at_once_from to null" if paged else ""
            yield Doubt(at, f"the {role.words} {what} and no channel leads there; name one{otherwise}")
    for name in type(policy.contacts).model_fields:
        if not getattr(policy.contacts, name).channels:
            yield Doubt(("contacts", name, "channels"), f"{name} is told of a safety risk or a breach and no channel leads there; name one")
    if not policy.communication.fallback_channels:
        yield Doubt(("communication", "fallback_channels"), "a page that its channel does not take goes nowhere; name at least one")


def _is_paged(responder: Responder) -> bool:
    return responder.after_min is not None or responder.at_once_from is not None


# --- placeholders ---------------------------------------------------------------------------------------------------------------

_TAKES = {
    ("training", "command"): ("start_date", "end_date", "model_name", "version"),
    ("audits", "model_card"): ("model",),
}
_BRACES = re.compile(r"\{[ \w.-]*\}")  # JSON in an argument is none
_SHELL = re.compile(r"\$\{?\w+\}?|%\(\w+\)s|<(?:start_date|end_date|model_name|model|version)>")


def _placeholders(policy: Policy) -> Iterator[Doubt]:
    wrong = False
    for at, text in _texts(policy):
        if at[:2] == ("intake", "generic") or at[2:3] == ("platform",):  # braces make an object in an expression, and select in PromQL
            continue
        section = next((known for known in _TAKES if at[: len(known)] == known), None)
        for said in _wrong_placeholders(text, _TAKES[section] if section else ()):
            wrong |= section == ("training", "command")
            yield Doubt(at, said)
    command = " ".join(policy.training.command)
    missing = [f"{{{one}}}" for one in _TAKES["training", "command"] if f"{{{one}}}" not in command]
    if missing and not wrong:
        yield Doubt(("training", "command"), f"nothing tells the command {', '.join(missing)}: it would train the same every time; add it")


def _wrong_placeholders(text: str, known: tuple[str, ...]) -> Iterator[str]:
    for found in _BRACES.findall(text):
        if found[1:-1] not in known:
            yield _unknown(found, known)
    if not known:
        return
    odd = "{{" if "{{" in text else "{" if text.count("{") > text.count("}") else "}" if text.count("}") > text.count("{") else None
    shell = _SHELL.search(text)
    if odd or shell:
        use = ", ".join(f"{{{one}}}" for one in known)
        yield f"{odd or (shell and shell[0])} is taken as it stands, no shell reads it; the placeholders here are {use}"


def _unknown(found: str, known: Iterable[str]) -> str:
    names = list(known)
    if not names:
        return f"{found} is taken as it stands: there are no placeholders here"
    close = get_close_matches(found[1:-1].strip().lower().replace("-", "_"), names, n=1, cutoff=0.5)
    meant = f"; did you mean {{{close[0]}}}?" if close else ""
    return f"{found} is no placeholder here, the known ones are {', '.join(f'{{{one}}}' for one in names)}{meant}"


# --- addresses and secrets ------------------------------------------------------------------------------------------------------

_ADDRESSES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("an address (a URL)", re.compile(r"\w[\w+.-]*:/{1,2}\S|\bmailto:|\bwww\.\w", re.I)),
    ("an e-mail address", re.compile(r"[^\s@]+@[^\s@]+\.\w+")),
    ("a host", re.compile(r"^(?=.*[a-z])[\w-]+(\.[\w-]+)*\.[a-z]{2,}(:\d+)?(/\S*)?$|^\d{1,3}(\.\d{1,3}){3}(:\d+)?$", re.I)),
    ("a phone number", re.compile(r"(?<![\w-])\+?\(?\d(?:[ ()/.-]{0,2}\d){6,}(?![\w-])")),
)
_SECRET = re.compile(
    r"xox[abeprs]-[\w-]{8,}|xapp-[\w-]{8,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|AKIA[0-9A-Z]{12,}|sk-[\w-]{16,}"
    r"|mlrb_[\w-]{8,}|eyJ[\w-]{10,}\.[\w-]{10,}|://[^\s/:@]+:[^\s/@]+@|hooks\.slack\.com/\S|discord(?:app)?\.com/api/webhooks/\S"
    r"|\b(?:password|passwd|secret|token|api[_-]?key)\s*[=:]\s*\S{6,}|-----BEGIN [A-Z ]*PRIVATE KEY",
    re.I,
)
_LONG = re.compile(r"(?<![A-Za-z0-9])(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{28,}(?![A-Za-z0-9])|\b\d{8,10}:[\w-]{30,}")


def _names(policy: Policy) -> Iterator[tuple[KeyPath, str, str]]:
    """Texts by which people call something, and where its address belongs."""
    env = "its address is a setting, MLRUNBOOK_CHANNEL_{}"
    for channel, called in policy.channels.items():
        yield ("channels", channel), called, env.format(channel.upper().replace("-", "_"))
    for role in Role:
        yield ("escalation", role.value, "name"), policy.escalation.of(role).name, "addresses belong to the channels of the role"
    for name in type(policy.contacts).model_fields:
        yield ("contacts", name, "name"), getattr(policy.contacts, name).name, "addresses belong to the channels of the contact"
    for model, rules in policy.models.items():
        yield ("models", model, "owner"), rules.owner, "name the team; its address is a channel's"


def _addresses(policy: Policy) -> Iterator[Doubt]:
    for at, text, instead in _names(policy):
        if not _is_secret(text) and (what := next((noun for noun, pattern in _ADDRESSES if pattern.search(text)), None)):
            yield Doubt(at, f"looks like {what}, and a name belongs here: {instead}")
    people = [(("escalation", role.value, "email"), policy.escalation.of(role).email) for role in Role]
    people += [(("contacts", name, "email"), getattr(policy.contacts, name).email) for name in type(policy.contacts).model_fields]
    for where, email in people:
        if not re.fullmatch(r"[^\s@:/]+@[^\s@:/]+", email):
            yield Doubt(where, "is no e-mail address, as in ml-oncall@example.com")


def _secrets(policy: Policy) -> Iterator[Doubt]:
    for at, text in _texts(policy):
        if _is_secret(text):
            yield Doubt(at, "looks like a secret, and this file is no place for one: withdraw it, and put the new one into a setting")


def _is_secret(text: str) -> bool:
    return bool(_SECRET.search(text) or _LONG.search(text))


# --- what nobody has decided ----------------------------------------------------------------------------------------------------


def _undecided(policy: Policy) -> Iterator[Doubt]:
    for at, text in _texts(policy):
        if at[2:3] == ("platform",) and text == UNDECIDED:
            key = next(str(part) for part in reversed(at) if isinstance(part, str))
            yield Doubt(at, f"nobody has said yet what it is, and what rests on it is not judged: write the name of the {key} in its place")


# --- what can never match -------------------------------------------------------------------------------------------------------


def _never_match(policy: Policy) -> Iterator[Doubt]:
    for look in (_cluster, _models, _windows, _literals):
        yield from look(policy)


def _cluster(policy: Policy) -> Iterator[Doubt]:
    """A file of 0.1.0, which knew no `default_model`, reads like this."""
    if not policy.objects.by_model:
        why = "these objects belong to no model, and every change in a cluster is refused; name your model in `cluster.default_model`"
        yield Doubt(("cluster", "default"), why)


def _models(policy: Policy) -> Iterator[Doubt]:
    seen: dict[str, str] = {}
    for name in policy.models:
        same = re.sub(r"\*+", "*", name)
        if same in seen:
            yield Doubt(("models", name), f"means the same models as {seen[same]}, and only one of the two counts; keep one")
        seen.setdefault(same, name)


def _windows(policy: Policy) -> Iterator[Doubt]:
    windows = [(("silences", i), one) for i, one in enumerate(policy.silences)]
    for where, window in (*windows, *((("maintenance", i), one) for i, one in enumerate(policy.maintenance))):
        for n, pattern in enumerate(window.models):
            if not MODEL_ID.fullmatch(_sample(pattern)):
                why = "never fits: no model id looks like that (letters, digits, '.', '_' and '-', 100 at most; * and ? are wild)"
                yield Doubt((*where, "models", n), why)
        if isinstance(window, Silence):
            yield from _silenced_alerts(policy, where, window)


def _silenced_alerts(policy: Policy, where: KeyPath, silence: Silence) -> Iterator[Doubt]:
    known = policy.alert_types
    for n, name in enumerate(silence.alerts):
        at = (*where, "alerts", n)
        if name != name.strip():
            yield Doubt(at, "never fits: an alert's name has no space around it")
        elif not is_pattern(name) and name not in known and (close := get_close_matches(name, known, n=1, cutoff=0.8)):
            yield Doubt(at, f"is no alert of this policy; did you mean {close[0]}?")
        elif silence.types and known.get(name) and known[name] not in silence.types:
            yield Doubt(at, f"never fits: {name} is of type {known[name]}, which is not among this silence's types")


def _literals(policy: Policy) -> Iterator[Doubt]:
    """Names that are compared as they stand."""
    lists: dict[KeyPath, Iterable[str]] = {
        ("safety", "critical_asset_types"): policy.safety.critical_asset_types,
        ("safety", "critical_assets"): policy.safety.critical_assets,
        ("features", "views"): policy.features.views,
        ("features", "join_keys"): policy.features.join_keys,
        ("intake", "production_aliases"): policy.intake.production_aliases,
    }
    found = [((*at, n), name) for at, names in lists.items() for n, name in enumerate(names)]
    found += [(("breach", "alert_subtypes", name), name) for name in policy.breach.alert_subtypes]
    found += [(("cluster", "models", name), name) for name in policy.cluster.models]
    for at, name in found:
        if is_pattern(name):
            yield Doubt(at, f"never fits: {name} is compared as it stands, * and ? are not wild here; name each one")
        elif name != name.strip():
            yield Doubt(at, "never fits: there is a space around it")


def _sample(pattern: str) -> str:
    """A text that the pattern should fit."""
    return pattern.replace("*", "x").replace("?", "x")


def _texts(policy: Policy) -> Iterator[tuple[KeyPath, str]]:
    """Every text of the policy."""

    def walk(value: Any, at: KeyPath) -> Iterator[tuple[KeyPath, str]]:
        if isinstance(value, str):
            yield at, value
        elif isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(inner, (*at, key))
        elif isinstance(value, list):
            for n, inner in enumerate(value):
                yield from walk(inner, (*at, n))

    yield from walk(policy.model_dump(mode="json"), ())
