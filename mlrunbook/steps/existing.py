"""Before anything is planned: what a person names is looked up where it must exist. What cannot be looked up is not planned."""

from __future__ import annotations

from mlrunbook.domain import existing
from mlrunbook.domain.errors import Invalid, NotFound, Transient, Unknown
from mlrunbook.wiring import World


def check_version(world: World, model: str, version: str, *, field: str = "version") -> None:
    """The registry knows this version of the model. Invalid, naming `field` and what is registered, when it does not; Invalid naming
    "model" when it knows no such model; Transient when it cannot be read, and then nothing may be planned that rests on it.
    """
    try:
        registered = [v.version for v in world.platform.versions(model)]
    except NotFound as error:
        raise Invalid(f"the model registry knows no model {model}: register it, or correct the name", field="model") from error
    except (Transient, Unknown) as error:
        raise Transient(f"whether {version} is registered for {model} cannot be checked, so nothing was planned: {error}") from error
    existing.check_registered(model, version, registered, field=field)
