"""All that `connect` found, as one proposal: the guesses of every model, the file as it would be, and the settings that services need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from mlrunbook.base.policy_file import parse, warnings_of
from mlrunbook.diagnostics.connect.addresses import shown
from mlrunbook.diagnostics.connect.guessing import Answers, found_models, guessed
from mlrunbook.diagnostics.connect.looking import Looked, Places
from mlrunbook.diagnostics.connect.rendering import rendered
from mlrunbook.diagnostics.connect.writing import Written, write
from mlrunbook.domain.connecting.guesses import undecided
from mlrunbook.domain.connecting.model import ModelGuess
from mlrunbook.domain.connecting.objects import ObjectsGuess
from mlrunbook.domain.policy.connections import connection_variable


def propose(
    looked: Looked, places: Places, now: datetime, *, only: Sequence[str] = (), said: Answers | None = None
) -> tuple[ModelGuess, ...]:
    said = said or Answers()
    return _apart([guessed(model, looked, places, now, said) for model in found_models(looked, only)])


def _apart(guesses: Sequence[ModelGuess]) -> tuple[ModelGuess, ...]:
    """A Deployment that resembles two models is of neither until somebody says so: an incident of one would change the other."""
    taken = Counter(g.objects.deployment.value for g in guesses if g.objects and g.objects.deployment.value)
    result = []
    for guess in guesses:
        name = guess.objects.deployment.value if guess.objects else None
        if name is not None and taken[name] > 1:
            others = ", ".join(g.model for g in guesses if g.objects and g.objects.deployment.value == name and g.model != guess.model)
            reason = f"{name} resembles {others} as well: whose is it?"
            result.append(replace(guess, objects=ObjectsGuess(undecided([name], reason))))
        else:
            result.append(guess)
    return tuple(result)


def used(guesses: Sequence[ModelGuess], places: Places) -> dict[str, str]:
    """The connections that the models use, name to kind."""
    found = {}
    if places.names.registry and any(g.in_registry for g in guesses):
        found[places.names.registry] = "mlflow"
    if places.names.predictions and any(g.log for g in guesses):
        found[places.names.predictions] = "sql"
    if places.names.live and any(g.live and g.live.figures for g in guesses):
        found[places.names.live] = "prometheus"
    return found


def put(text: str, guesses: Sequence[ModelGuess], places: Places, *, anew: bool = False) -> Written:
    """The file with the models in it. Raises Invalid, as `policy check` would, where it would not hold."""
    models = {guess.model: rendered(guess, places.names, "  ") for guess in guesses}
    written = write(text, used(guesses, places), models, replace=anew)
    parse(written.text)
    return written


def doubts(text: str, before: str) -> list[str]:
    """What `policy check` warns of in the new file, and not in the old one."""
    known = {line.partition(": ")[2] for line in warnings_of(before)}
    return [line for line in warnings_of(text) if line.partition(": ")[2] not in known]


@dataclass(frozen=True)
class Needed:
    """A setting of the services; `value` None where it holds a secret, or is one."""

    name: str
    value: str | None
    why: str = ""


def settings(guesses: Sequence[ModelGuess], places: Places) -> list[Needed]:
    addresses = {places.names.registry: places.mlflow, places.names.predictions: places.predictions, places.names.live: places.prometheus}
    result = []
    for name in used(guesses, places):
        address = addresses[name] or ""
        hidden = shown(address) != address
        result.append(
            Needed(connection_variable(name), None if hidden else address, f"{shown(address)}, with its password" if hidden else "")
        )
        if name in places.tokens:
            result.append(Needed(f"{connection_variable(name)}_TOKEN", None, "the token that was used here"))
    if any(g.objects and g.objects.deployment.value for g in guesses):
        result += [Needed("MLRUNBOOK_RUNTIME", "kubernetes")]
        result += [Needed("MLRUNBOOK_KUBE_CONTEXT", places.kube_context)] if places.kube_context else []
        result += [Needed("MLRUNBOOK_KUBE_NAMESPACE", places.namespace)] if places.namespace else []
    if places.feast and any(g.views for g in guesses):
        result.append(Needed("MLRUNBOOK_FEATURE_REPO", str(places.feast)))
    return result


def without(guesses: Sequence[ModelGuess], left: Mapping[str, str]) -> list[ModelGuess]:
    return [g for g in guesses if g.model not in left]
