"""The policy, and whether the people it names can be reached. Nothing is sent."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlrunbook.adapters.channels import mail, pagerduty
from mlrunbook.base.policy_file import warnings
from mlrunbook.diagnostics.doctor import CALL_S, Ask, Finding, fail, ok, warn
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.policy.policy import channel_variable
from mlrunbook.domain.roles import Role

_PORTS = {"http": 80, "https": 443}


def channels(ask: Ask) -> Iterator[Finding]:
    """Addresses are read by apprise, and a connection is opened and closed where it says which host it would call."""
    bare = [name for name in ask.policy.channels if name not in ask.addresses]
    for name, address in sorted(ask.addresses.items()):
        yield _channel(name, address)
    policy = ask.policy.for_model(ask.model)
    people = {role.words: policy.escalation.of(role).channels for role in Role}
    people |= {name: getattr(policy.contacts, name).channels for name in type(policy.contacts).model_fields}
    if unreached := {who: names for who, names in people.items() if set(names) <= set(bare)}:
        variables = ", ".join(sorted({channel_variable(name) for names in unreached.values() for name in names}))
        yield warn("who is reached", f"nobody calls {', '.join(unreached)}: their messages are only files", f"set {variables}")
    else:
        yield ok("who is reached", "every role and contact has a channel with an address")
    yield from _one_pager(ask)


def _one_pager(ask: Ask) -> Iterator[Finding]:
    """PagerDuty joins what is triggered under a key that is open: who shares a routing key with an earlier role is not called anew."""
    pagers = {name: address for name, address in ask.addresses.items() if urlsplit(address).scheme == pagerduty.SCHEME}
    keys: dict[str, list[str]] = {}
    for role in Role:
        if (of := ask.policy.for_model(ask.model).escalation.of(role)).channels and set(of.channels) <= set(pagers):
            for key in {urlsplit(pagers[name]).netloc for name in of.channels}:
                keys.setdefault(key, []).append(role.words)
    for roles in keys.values():
        if len(roles) > 1:
            said = f"{', '.join(roles)} share one PagerDuty routing key: an incident calls there once, whoever is to be paged later"
            fix = "give each role a channel of its own under escalation in the policy, with a routing key of its own"
            yield warn("who is called", said, fix)


def _channel(name: str, address: str) -> Finding:
    import apprise

    where = f"channel {name}"
    scheme = urlsplit(address).scheme
    if scheme == pagerduty.SCHEME or scheme in mail.SCHEMES:
        return _own(where, name, address, scheme)
    target = apprise.Apprise.instantiate(address)
    if target is None:
        return fail(where, "its address is none that apprise knows", f"write {channel_variable(name)} as in slack://... or mailto://...")
    service = str(target.service_name or type(target).__name__)
    found = _host(target)
    if found is None:
        return ok(where, f"{service}; whom it calls is not known before, so no connection was tried")
    host, port = found
    try:
        socket.create_connection((host, port), timeout=CALL_S).close()
    except OSError as error:
        return fail(
            where, f"{service} at {host}:{port} is not reachable ({type(error).__name__})", "open the way there: a proxy or firewall?"
        )
    return ok(where, f"{service} at {host}:{port} takes connections; nothing was sent")


def _own(where: str, name: str, address: str, scheme: str) -> Finding:
    """PagerDuty and mail, which are not sent by apprise."""
    try:
        parts = urlsplit(pagerduty.service(name, address).url if scheme == pagerduty.SCHEME else address)
        host, port = str(parts.hostname or ""), parts.port or {"https": 443, "http": 80, "smtps": 465, "smtp": 587}[parts.scheme]
    except (Refused, ValueError):
        return fail(where, "its address cannot be read", f"write {channel_variable(name)} as the how-to page on operating says")
    try:
        socket.create_connection((host, port), timeout=CALL_S).close()
    except OSError as error:
        return fail(where, f"{host}:{port} is not reachable ({type(error).__name__})", "open the way there: a proxy or firewall?")
    return ok(where, f"{scheme} at {host}:{port} takes connections; nothing was sent")


def _host(target: Any) -> tuple[str, int] | None:
    """Where a plugin would connect: its mail server, the host of its address, or the URL it has built in."""
    if smtp := getattr(target, "smtp_host", None):
        return str(smtp), int(target.port or (465 if target.secure else 587))
    for attribute in ("notify_url", "webhook_url", "api_url", "service_url"):
        parts = urlsplit(str(getattr(target, attribute, "") or ""))
        if parts.scheme in _PORTS and parts.hostname and "{" not in parts.hostname:
            return parts.hostname, parts.port or _PORTS[parts.scheme]
    host = str(getattr(target, "host", None) or "")
    return (host, int(target.port or (443 if target.secure else 80))) if "." in host or host == "localhost" else None


def policy(ask: Ask, source: Path | None) -> Iterator[Finding]:
    yield ok("policy", str(source) if source else "no file: the defaults, which are the runbook")
    if source and (doubtful := warnings(source)):
        yield warn("policy warnings", f"{len(doubtful)} probable mistake(s): {doubtful[0]}", "mlrunbook policy check")
    safety = ask.policy.safety
    if not (safety.critical_assets or safety.critical_asset_types):
        said = "none is named: that one of them failed after a low score raises no alert"
        yield warn("critical assets", said, "name them under safety in the policy: MLRUNBOOK_POLICY, runbook.yaml")
    unknown = sorted(name for name in os.environ if name.startswith("MLRUNBOOK_CHANNEL_") and _unnamed(ask, name))
    if unknown:
        yield warn("channels", f"{', '.join(unknown)} belong to no channel of the policy", "correct the name, or add the channel")


def _unnamed(ask: Ask, variable: str) -> bool:
    return variable not in {channel_variable(name) for name in ask.policy.channels}
