"""`/doctor` and `/policy`: what works here and what is in force. Both only look."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import yaml
from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup

from mlrunbook import bootstrap
from mlrunbook.base.policy_file import warnings
from mlrunbook.base.settings import settings
from mlrunbook.diagnostics import everything
from mlrunbook.diagnostics.doctor import Finding, Level
from mlrunbook.domain.blackout import without_secrets
from mlrunbook.domain.errors import NotApproved, RunbookError, Transient
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.console import rendering, words
from mlrunbook.gateway.console.visitor import Reader
from mlrunbook.response.world import World

FRESH_S = 20.0
MOST_WAITING = 4  # people at once: each waits in a place that alerts and decisions need too
DEFAULT_MODEL = "predictive_maintenance"

Examine = Callable[[str], list[Finding]]
Model = Annotated[str, Query(max_length=100)]


def examined(model: str) -> list[Finding]:
    """The checks of `mlrunbook doctor`, with this process's settings; each has its own time."""
    return everything.findings(settings(), os.environ, bootstrap.policy_path(), model)


@dataclass
class Doctor:
    """One examination at a time, however many people look: it asks everything that the runbook stands on. Transient when too many wait."""

    examine: Examine
    _places: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MOST_WAITING))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _last: tuple[str, float, list[Finding]] | None = None

    def findings(self, model: str) -> list[Finding]:
        if not self._places.acquire(blocking=False):
            raise Transient("the doctor is busy with others: look again in a minute")
        try:
            return self._found(model)
        finally:
            self._places.release()

    def _found(self, model: str) -> list[Finding]:
        with self._lock:
            if self._last is None or self._last[0] != model or time.monotonic() - self._last[1] > FRESH_S:
                found = self.examine(model)
                self._last = (model, time.monotonic(), found)
            return self._last[2]


@dataclass(frozen=True)
class Part:
    """One section of the policy, as it would stand in the file."""

    name: str
    text: Markup
    is_default: bool


def parts(policy: Policy) -> Iterator[Part]:
    """Those that the team has changed first."""
    values, usual = policy.model_dump(mode="json"), Policy().model_dump(mode="json")
    for name in sorted(values, key=lambda name: (values[name] == usual[name], name)):
        text = yaml.safe_dump({name: values[name]}, sort_keys=False, allow_unicode=True)
        readable, _ = without_secrets(text.encode())  # an address may carry a password, a command a key
        yield Part(name, words.preformatted(readable.decode()), values[name] == usual[name])


def doubts() -> Sequence[str]:
    """What `mlrunbook policy check` warns of, or why the file cannot be read."""
    try:
        path = bootstrap.policy_path()
        return warnings(path) if path else []
    except RunbookError as error:
        return str(error).splitlines()


def add(routes: APIRouter, world: World, policy_now: Callable[[], Policy]) -> None:
    doctor = Doctor(examined)

    @routes.get("/doctor")
    def show_doctor(request: Request, visitor: Reader, model: Model = "", live: bool = False) -> Response:
        if visitor.who.limits.models:
            raise NotApproved("the doctor looks at all models: sign in with a token that is not limited to some")
        asked = model or world.policy.cluster.default_model or DEFAULT_MODEL
        found = doctor.findings(asked) if live else None
        counts = {level: sum(one.level is level for one in found or ()) for level in reversed(Level)}
        return rendering.page(request, visitor, "doctor.html.j2", found=found, counts=counts, model=asked)

    @routes.get("/policy")
    def show_policy(request: Request, visitor: Reader) -> Response:
        policy = world.policy
        values: dict[str, Any] = {"parts": list(parts(policy)), "doubts": doubts(), "changed": _has_changed(policy, policy_now)}
        return rendering.page(request, visitor, "policy.html.j2", models=policy.models, approvals=_who_decides(policy), **values)


def _has_changed(policy: Policy, policy_now: Callable[[], Policy]) -> bool:
    """Whether the file says something else by now than this process follows."""
    try:
        return policy_now() != policy
    except RunbookError:
        return True


def _who_decides(policy: Policy) -> list[tuple[str, str]]:
    found = []
    for name in type(policy.approvals).model_fields:
        rule = getattr(policy.approvals, name)
        who = " or ".join(role.words for role in rule.roles)
        found.append((name.replace("_", " "), f"{rule.count} of: {who}" if rule.count > 1 else who))
    return found
