"""A plan is rehearsed before it is put up for approval and before a rule carries it out: nothing is changed, and what the runtime
would refuse is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mlrunbook.domain.actions import Action, Configure, Isolate, Plan, Restart, RouteTraffic, Scale, UndoRollout
from mlrunbook.domain.containment.containment import feasible
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.observed import Missing
from mlrunbook.response.execution import existing
from mlrunbook.response.tried import tried
from mlrunbook.response.world import World

# What the runtime does; the other actions are the platform's and the feature store's.
OF_THE_RUNTIME = (Scale, RouteTraffic, Configure, Restart, UndoRollout, Isolate)


@dataclass(frozen=True)
class DryRun:
    """`refused`: why, by the action's position. `found`: a sentence an action of the runtime, for the approver. `untried`: why the runtime
    gave no answer; empty: it did."""

    refused: Mapping[int, str]
    found: tuple[str, ...]
    untried: str = ""

    def shown(self, plan: Plan) -> Plan:
        return replace(plan, facts={**plan.facts, "dry_run": list(self.found)}) if self.found else plan


def dry_run(world: World, model: str, actions: Sequence[Action]) -> DryRun:
    """Each action by itself, once what it names is known to exist. A runtime that gives no answer refuses nothing, and is asked only once:
    that is for the carrying out."""
    refused = existing.refused(world, model, actions)
    found: list[str] = []
    silent = untried = ""
    for i, action in enumerate(actions):
        if not isinstance(action, OF_THE_RUNTIME) or i in refused:
            continue
        said = silent
        if not silent:
            rehearsed = tried("the dry run", partial(_rehearsed, world, model, action))
            if isinstance(rehearsed, Missing):
                said = silent = f"could not be tried: {rehearsed.reason}"
                untried = rehearsed.reason
            else:
                is_refused, said = rehearsed
                if is_refused:
                    refused[i], said = said, f"would be refused: {said}"
        found.append(f"{action.summary}: {said}")
    return DryRun(refused, tuple(found), untried)


def _rehearsed(world: World, model: str, action: Action) -> tuple[bool, str]:
    """Whether the runtime would refuse it, and its words."""
    try:
        return False, "; ".join(world.runtime.dry_run(model, [action])) or "nothing speaks against it"
    except Refused as error:
        return True, str(error)


def left_out(actions: Sequence[Action], rehearsal: DryRun) -> tuple[list[int], list[tuple[Action, str]]]:
    """The positions of what is left to do, and each other action with the reason."""
    keep, why = feasible(actions, rehearsal.refused), "; ".join(rehearsal.refused.values())
    return keep, [(action, rehearsal.refused.get(i, why)) for i, action in enumerate(actions) if i not in keep]


def refusal(plan: Plan, rehearsal: DryRun) -> str | None:
    """Why the plan is not offered; None when the runtime would carry it out."""
    why = next(iter(rehearsal.refused.values()), None)
    return why and f"not offered, because a dry run of it was refused: {'; '.join(a.summary for a in plan.actions)}: {why}"
