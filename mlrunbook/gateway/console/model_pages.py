"""`/models`: every model that policy, the registry or an incident knows.

The pages come from the store and policy at once. What serves is asked of the platform and the runtime, all at the same time and no longer
than `ASK_S`; a page with `live` in its address has waited for it, and the script of the page fetches that one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import Connection

from mlrunbook.base.concurrent_reads import read_all
from mlrunbook.base.tokens import Identity
from mlrunbook.domain.errors import NotFound, RunbookError
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.observed import ServingState, ServingStatus
from mlrunbook.domain.policy.alerting import Maintenance, Silence
from mlrunbook.domain.policy.intake import MODEL_ID
from mlrunbook.domain.policy.patterns import fits, is_pattern
from mlrunbook.domain.policy.people import UNNAMED
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role
from mlrunbook.gateway.console import rendering, words
from mlrunbook.gateway.console.visitor import ListReader, Reader
from mlrunbook.response import modes
from mlrunbook.response.world import World
from mlrunbook.store import alerts, audits, baseline_pins, incidents
from mlrunbook.store.audits import Filed

ASK_S = 4.0
MOST_ASKED = 100
LAST = 10

ModelName = Annotated[str, Path(alias="model", pattern=f"^{MODEL_ID.pattern}$")]
Live = Annotated[bool, Query()]


@dataclass(frozen=True)
class Serving:
    """What serves as the platform and the runtime say; a part that did not answer is the reason why."""

    status: ServingStatus | None = None
    state: ServingState | None = None
    wrong: Mapping[str, str] = field(default_factory=dict)

    @property
    def health(self) -> str:
        """One of ok, bad, unknown."""
        if self.status is None:
            return "unknown"
        is_well = self.status.server_healthy and not self.status.not_loaded and self.status.features in (None, "ok")
        return "ok" if is_well else "bad"


@dataclass(frozen=True)
class Row:
    """One model in the list. `quiet`: why nobody hears its alerts now."""

    model: str
    owner: str
    open: int
    worst: Severity | None
    firing: int
    quiet: tuple[str, ...]
    audit: Filed | None


def known(conn: Connection, world: World, who: Identity) -> list[str]:
    """The names that this visitor may hear of."""
    policy = world.policy
    named = {*incidents.models(conn), *world.known_models.listed, *(name for name in policy.named_models if not is_pattern(name))}
    return sorted(name for name in named if who.may_see(name))


def rows(conn: Connection, policy: Policy, models: Iterable[str], *, now: datetime) -> list[Row]:
    """Models with open incidents first, the most severe on top."""
    of: dict[str, Counter[Severity]] = {}
    for (model, _, severity), count in incidents.open_by_kind(conn).items():
        of.setdefault(model, Counter())[Severity(severity)] += count
    firing, last = alerts.firing_by_model(conn), audits.newest(conn)

    def row(model: str) -> Row:
        found = of.get(model, Counter())
        worst = max(found, key=lambda severity: severity.rank, default=None)
        return Row(
            model, policy.rules_of(model).owner, found.total(), worst, firing.get(model, 0), quiet(policy, model, now), last.get(model)
        )

    return sorted(map(row, models), key=lambda one: (-(one.worst.rank + 1) if one.worst else 0, one.model))


def windows(policy: Policy, model: str, now: datetime) -> list[Silence | Maintenance]:
    """The silences and maintenance windows in force that are about this model, all of it or some of its alerts."""
    every: tuple[Silence | Maintenance, ...] = (*policy.silences, *policy.maintenance)
    return [one for one in every if one.start <= now < one.end and (not one.models or any(fits(model, name) for name in one.models))]


def quiet(policy: Policy, model: str, now: datetime) -> tuple[str, ...]:
    """In words, one a window; a freeze of changes too."""
    found = [
        f"{'Silence' if isinstance(one, Silence) else 'Maintenance'} until {words.clock(one.end)}: {one.reason}"
        + (f" (only {', '.join((*one.alerts, *one.types))})" if isinstance(one, Silence) and (one.alerts or one.types) else "")
        for one in windows(policy, model, now)
    ]
    if frozen := policy.freeze_at(now):
        found.append(f"Changes are frozen until {words.clock(frozen.end)}: {frozen.reason}")
    return tuple(found)


def ask(world: World, models: Iterable[str], *, runtime: bool = False) -> dict[str, Serving]:
    """What serves, of all these models at once; nobody waits longer than `ASK_S` seconds."""
    asked: dict[str, Callable[[], Any]] = {}
    names = list(models)[:MOST_ASKED]
    for model in names:
        asked[f"platform {model}"] = lambda model=model: world.platform.status(model)  # type: ignore[misc]
        if runtime:
            asked[f"runtime {model}"] = lambda model=model: world.runtime.observe(model)  # type: ignore[misc]
    found = read_all(asked, within_s=ASK_S)
    return {model: _serving(found[f"platform {model}"], found.get(f"runtime {model}")) for model in names}


def _serving(status: Any, state: Any) -> Serving:
    wrong = {part: str(said) for part, said in (("platform", status), ("runtime", state)) if isinstance(said, RunbookError)}
    return Serving(
        status if isinstance(status, ServingStatus) else None,
        state if isinstance(state, ServingState) else None,
        wrong,
    )


def _registered(world: World) -> list[str]:
    said = read_all({"models": world.platform.models}, within_s=ASK_S)["models"]
    return [] if isinstance(said, RunbookError) else list(said)


def add(routes: APIRouter, world: World) -> None:
    @routes.get("/models")
    def list_models(request: Request, visitor: ListReader, live: Live = False) -> Response:
        now, registered = world.now(), _registered(world) if live else []
        with world.transaction() as conn:
            names = sorted({*known(conn, world, visitor.who), *filter(visitor.who.may_see, registered)})
            found = rows(conn, world.policy, names, now=now)
        serving = ask(world, names) if live else None
        return rendering.page(request, visitor, "models.html.j2", rows=found, serving=serving, now=now, ago=words.ago, clock=words.clock)

    @routes.get("/models/{model}")
    def show_model(request: Request, visitor: Reader, model: ModelName, live: Live = False) -> Response:
        now, policy = world.now(), world.policy
        with world.transaction() as conn:
            is_known = model in known(conn, world, visitor.who) or policy.names(model)
            opened = incidents.find(conn, model=model, only_open=True, limit=LAST)
            last, filed = incidents.find(conn, model=model, limit=LAST), audits.find(conn, model=model, limit=LAST)
            firing, pin = alerts.firing_by_model(conn).get(model, 0), baseline_pins.get(conn, model)
            changed = modes.last_change(conn, policy, model)
        serving = ask(world, [model], runtime=True)[model] if live else None
        if not is_known and not live:  # the registry may know it, and is not waited for here
            raise NotFound(f"Nobody knows a model {model[:100]}: neither policy nor an incident names it. See the list of models.")
        return rendering.page(
            request,
            visitor,
            "model.html.j2",
            model=model,
            rules=policy.rules_of(model),
            mode=policy.mode_of(model),
            mode_change=changed,
            people=people_of(policy.for_model(model)),
            quiet=quiet(policy, model, now),
            opened=opened,
            past=[one for one in last if not one.status.is_open],
            audits=filed,
            firing=firing,
            pin=pin,
            serving=serving,
            now=now,
            ago=words.ago,
            clock=words.clock,
        )


def people_of(policy: Policy) -> list[tuple[str, str]]:
    """Who is called about an incident, in the order of the ladder, with when."""
    found = []
    for role in Role:
        of = policy.escalation.of(role)
        after = "at once" if of.after_min == 0 else f"after {of.after_min} min" if of.after_min is not None else "as needed"
        sooner = f", at once from {of.at_once_from}" if of.at_once_from else ""
        found.append((f"{role.words}{'' if of.name == UNNAMED else f': {of.name}'}", after + sooner))
    return found
