"""Before anything is planned: what a person or the diagnosis names is looked up where it must exist, and must be the model's own. What
cannot be looked up is not planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from mlrunbook.domain.actions import (
    Action,
    Configure,
    Materialize,
    Path,
    Promote,
    Register,
    ResumeMaterialization,
    RollBack,
    RouteTraffic,
    Stage,
)
from mlrunbook.domain.errors import Invalid, NotFound, Refused, RunbookError, Transient
from mlrunbook.domain.resolution import existing
from mlrunbook.domain.resolution.request import Request
from mlrunbook.response.tried import unexpected
from mlrunbook.response.world import World


def check_version(world: World, model: str, version: str, *, field: str = "version") -> None:
    """The registry knows this version of the model. Invalid, naming `field` and what is registered, when it does not; Invalid naming
    "model" when it knows no such model; Transient when it cannot be read, and then nothing may be planned that rests on it.
    """
    try:
        registered = [v.version for v in world.platform.versions(model)]
    except NotFound as error:
        raise Invalid(f"the model registry knows no model {model}: register it, or correct the name", field="model") from error
    except Refused:
        raise
    except Exception as error:  # away, or an answer that nobody understands
        why = str(error) if isinstance(error, RunbookError) else unexpected("the list of versions", error).reason
        raise Transient(f"whether {version} is registered for {model} cannot be checked, so nothing was planned: {why}") from error
    existing.check_registered(model, version, registered, field=field)


def check_request(world: World, model: str, request: Request) -> None:
    """A person asks for a path by name (`opening.open_or_join`): Invalid, by the parameter's name, where what it names does not exist.

    A registry that cannot be read or understood refuses nothing here: the incident opens and pages, and its plan is checked again.
    """
    try:
        match request.path:
            case Path.ROLLBACK:
                check_version(world, model, str(request.target_version), field="targetVersion")
            case Path.THRESHOLD if request.threshold is not None:
                existing.check_threshold(request.threshold)
            case Path.MATERIALIZE:
                existing.check_views(model, request.views, world.policy.feature_views_of(model))
    except Invalid:
        raise
    except RunbookError:
        return


def refused(world: World, model: str, actions: Sequence[Action]) -> dict[int, str]:
    """Why an action is not planned, by its position: what it names does not exist, is another model's, or cannot be looked up now.

    A route is the runtime's to carry out, and the runtime's rehearsal judges it while the registry cannot be read.
    """
    new = {action.version for action in actions if isinstance(action, Register)}
    found: dict[int, str] = {}
    for i, action in enumerate(actions):
        try:
            for check in _checks(world, model, action, new):
                check()
        except Transient as error:
            if not isinstance(action, RouteTraffic):
                found[i] = str(error)
        except Refused as error:
            found[i] = str(error)
    return found


def _checks(world: World, model: str, action: Action, new: set[str]) -> list[Callable[[], None]]:
    match action:
        case RollBack(target_version=version) | RouteTraffic(version=version) | Promote(version=version) | Stage(version=version):
            return [partial(check_version, world, model, version)] if version is not None and version not in new else []
        case Materialize(views=views) | ResumeMaterialization(views=views):
            return [partial(existing.check_views, model, views, world.policy.feature_views_of(model))]
        case Configure(settings=settings) if "threshold" in settings:
            return [partial(existing.check_threshold, settings["threshold"])]
    return []
