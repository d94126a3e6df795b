"""A plan is rehearsed before a person is asked about it: what the runtime would refuse is not offered."""

from __future__ import annotations

from collections.abc import Sequence

from mlrunbook.domain.actions import Action, Plan
from mlrunbook.domain.errors import Refused, Transient
from mlrunbook.steps.run import Run


def refusal(run: Run, plan: Plan) -> str | None:
    """Why the plan is not offered; None when the runtime would carry it out."""
    why = refused(run, plan.model, plan.actions)
    return why and f"not offered, because a dry run of it was refused: {'; '.join(a.summary for a in plan.actions)}: {why}"


def refused(run: Run, model: str, actions: Sequence[Action]) -> str | None:
    """The runtime's words. None too where it gives no answer now: that is for the carrying out."""
    try:
        run.world.runtime.rehearse(model, actions)
    except Transient:
        return None
    except Refused as error:
        return str(error)
    return None
