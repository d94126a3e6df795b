"""`mlrunbook doctor`: every connection and permission, all at once, each with what to do about it.

A check looks and changes nothing. It answers within its time or counts as failed: a dead system costs seconds. What it says holds no
secret: whatever the settings know as one is taken out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from pydantic import SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from mlrunbook.base.settings import Settings
from mlrunbook.domain.errors import RunbookError
from mlrunbook.domain.policy.policy import Policy

WARN_S = 2.0
FAIL_S = 15.0  # beyond it two dispatchers may both send a page, and an approval ends early on the machine that is ahead

CALL_S = 4.0  # one request
HIDDEN = "***"


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"  # it works, and something will be missing
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line. `fix` says what to do; an ok has none."""

    level: Level
    name: str
    said: str
    fix: str = ""


def ok(name: str, said: str) -> Finding:
    return Finding(Level.OK, name, said)


def warn(name: str, said: str, fix: str) -> Finding:
    return Finding(Level.WARN, name, said, fix)


def fail(name: str, said: str, fix: str) -> Finding:
    return Finding(Level.FAIL, name, said, fix)


@dataclass(frozen=True)
class Ask:
    """What is looked at: the settings as the services would have them, the policy in force, and each channel's address."""

    settings: Settings
    policy: Policy
    model: str
    addresses: Mapping[str, str] = field(default_factory=dict)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Longest first, so that a part of one never hides the whole."""
        given = [v.get_secret_value() for v in vars(self.settings).values() if isinstance(v, SecretStr)]
        given += [auth.partition(":")[2] for auth in given if ":" in auth and "/" not in auth]
        if self.settings.database_url:
            given.append(_password(self.settings.database_url.get_secret_value()))
        return tuple(sorted({s for s in [*given, *self.addresses.values()] if len(s) >= 4}, key=len, reverse=True))


@dataclass(frozen=True)
class Check:
    name: str
    ask: Callable[[Ask], Iterable[Finding]]
    timeout_s: float = 12.0


def examine(checks: Sequence[Check], ask: Ask) -> list[Finding]:
    """Run all checks at once; findings in the checks' order. A check that raises or takes too long is a failed one."""
    found: list[list[Finding]] = [[] for _ in checks]
    threads = [threading.Thread(target=_run, args=(check, ask, into), daemon=True) for check, into in zip(checks, found, strict=True)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    result: list[Finding] = []
    for check, thread, into in zip(checks, threads, found, strict=True):
        thread.join(max(0.0, begun + check.timeout_s - time.monotonic()))
        result += list(into)
        if thread.is_alive():
            result.append(
                fail(check.name, f"no answer within {check.timeout_s:.0f} s", "look whether it hangs, or a firewall drops what is sent")
            )
    return [_clean(one, ask.secrets) for one in result]


def _run(check: Check, ask: Ask, into: list[Finding]) -> None:
    try:
        for finding in check.ask(ask):
            into.append(finding)
    except RunbookError as error:
        into.append(fail(check.name, str(error), "correct what it names"))
    except Exception as error:
        into.append(fail(check.name, f"{type(error).__name__}: {_first_line(error)}", "correct what it names, then run it again"))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


def _clean(finding: Finding, secrets: Sequence[str]) -> Finding:
    said, fix = finding.said, finding.fix
    for secret in secrets:
        said, fix = said.replace(secret, HIDDEN), fix.replace(secret, HIDDEN)
    return replace(finding, said=said, fix=fix)


def _password(url: str) -> str:
    try:
        return str(make_url(url).password or "")
    except ArgumentError:
        return ""


def skew(name: str, theirs: datetime, sent: datetime, received: datetime, *, resolution_s: float) -> Finding:
    """Their clock read between our `sent` and `received`; a reading cut to whole seconds has `resolution_s` 1."""
    early = (theirs - received).total_seconds()  # over 0: surely ahead
    late = (sent - theirs).total_seconds() - resolution_s  # over 0: surely behind
    off = max(early, late, 0.0)
    side = "ahead of" if early >= late else "behind"
    if off > WARN_S:
        said = f"{off:.1f} s {side} this machine's"
        return (fail if off > FAIL_S else warn)(name, said, "synchronise both machines (chrony, systemd-timesyncd)")
    return ok(name, f"agrees with this machine's within {WARN_S:.0f} s")
