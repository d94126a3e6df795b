"""A model whose server nobody gave us: nothing of it is seen or changed, and every refusal says what a person would run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mlrunbook.domain.actions import Action, Configure, Isolate, Restart, RouteTraffic, Scale, UndoRollout, check_own
from mlrunbook.domain.errors import NotFound, Refused
from mlrunbook.domain.observed import Instance, Resources, Revision, ServingConfig, ServingState
from mlrunbook.ports import MISSING


class NoRuntime:
    """`ports.ServingRuntime` for `serving: none`. Path A works by the registry alone."""

    def observe(self, model: str) -> ServingState:
        raise _unmanaged(model)

    def scale(self, model: str, *, replicas: int) -> None:
        raise _refusal(Scale(model, replicas))

    def route(self, model: str, *, version: str | None) -> None:
        raise _refusal(RouteTraffic(model, version))

    def read_config(self, model: str) -> ServingConfig:
        raise _unmanaged(model)

    def write_config(self, model: str, changes: Mapping[str, Any], *, expected_revision: str) -> ServingConfig:
        raise _refusal(Configure(model, dict(changes)))

    def restart(self, model: str, *, restart_id: str) -> None:
        raise _refusal(Restart(model, restart_id))

    def logs(self, model: str, *, tail: int = 500, since: datetime | None = None) -> str:
        raise _unmanaged(model)

    def instances(self, model: str) -> Sequence[Instance]:
        return []

    def resources(self, model: str) -> Resources:
        raise _unmanaged(model)

    def revisions(self, model: str) -> Sequence[Revision]:
        return []

    def undo_rollout(self, model: str, *, revision: int) -> None:
        raise _refusal(UndoRollout(model, revision))

    def dry_run(self, model: str, actions: Sequence[Action]) -> Sequence[str]:
        check_own(model, actions)
        for action in actions:
            raise _refusal(action)
        return []

    def isolate(self, model: str, *, isolated: bool) -> None:
        raise _refusal(Isolate(model, isolated))

    def preserve(self, model: str) -> Mapping[str, bytes]:
        return {f"serving{MISSING}": str(_unmanaged(model)).encode()}


def _unmanaged(model: str) -> NotFound:
    return NotFound(f"mlrunbook does not manage the server of {model} (models.{model}.platform.serving: none): look where it runs")


def _refusal(action: Action) -> Refused:
    why = f"mlrunbook does not manage the server of {action.model} (models.{action.model}.platform.serving: none)"
    return Refused(f"{why}. By hand, where it runs: {by_hand(action)}")


def by_hand(action: Action) -> str:
    """What a person would run in a cluster; elsewhere they know it by this.

    >>> by_hand(Scale("churn", 0))
    'kubectl scale deployment/DEPLOYMENT --replicas=0'
    """
    match action:
        case Scale(replicas=replicas):
            return f"kubectl scale deployment/DEPLOYMENT --replicas={replicas}"
        case RouteTraffic(version=version):
            value = "null" if version is None else f'"{version}"'
            return f"""kubectl patch svc/SERVICE -p '{{"spec":{{"selector":{{"version":{value}}}}}}}'"""
        case Restart():
            return "kubectl rollout restart deployment/DEPLOYMENT"
        case UndoRollout(revision=revision):
            return f"kubectl rollout undo deployment/DEPLOYMENT --to-revision={revision}"
        case Configure(settings=settings):
            return f"set {', '.join(f'{key} to {value}' for key, value in sorted(settings.items()))} in its config, then restart it"
        case Isolate(isolated=isolated):
            return "cut the server off from its clients" if isolated else "let its clients reach the server again"
    return action.summary
