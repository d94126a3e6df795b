"""The model registry of a team that has MLflow: `ports.Registry` over its aliases.

The serving version is the one that the alias names. MLflow keeps no history of an alias and moving one changes no timestamp, so every look
compares with our ledger. Setting an alias overwrites whatever it named: there is no compare-and-swap, so a move is read back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from mlrunbook.adapters.mlflow.client import MlflowClient, Registered, Run, Version
from mlrunbook.adapters.mlflow.described import described
from mlrunbook.domain import alias_moves
from mlrunbook.domain.alias_moves import Move, Seen
from mlrunbook.domain.errors import NotFound, Refused, RunbookError, Transient, Unknown
from mlrunbook.domain.observed import Change, ModelVersion, ServingState, ServingStatus
from mlrunbook.domain.policy.connections import RegistryPart, Serving
from mlrunbook.domain.policy.owned import is_model_id
from mlrunbook.domain.policy.patterns import is_pattern
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.ports import RegistryLedger, ServingRuntime

log = logging.getLogger(__name__)
Clients = Callable[[str], MlflowClient]  # by the connection's name
_ALIAS = "/registered-models/alias"
DESCRIBED, AT_ONCE = 50, 8


@dataclass(frozen=True)
class _Model:
    """One model in its registry. `restarts`: a restart is how its servers come to load what the alias names."""

    id: str
    part: RegistryPart
    client: MlflowClient
    restarts: bool
    has_server: bool

    @property
    def name(self) -> str:
        return self.part.name or self.id

    def version(self, version: str) -> Version:
        """NotFound, with what there is."""
        found = {one.version: one for one in self.client.versions(self.name)}
        if version not in found:
            self.client.registered(self.name)  # the model itself may be what is missing
            known = ", ".join(found) or "none"
            raise NotFound(f"MLflow has no version {version} of {self.name}; there are: {known}")
        return found[version]


class MlflowRegistry:
    """`ports.Registry` for the models whose policy names an MLflow connection. Thread-safe."""

    def __init__(
        self, policy: Policy, clients: Clients, ledger: RegistryLedger, runtime: ServingRuntime, now: Callable[[], datetime]
    ) -> None:
        self._policy, self._clients, self._ledger, self._runtime, self._now = policy, clients, ledger, runtime, now
        self._run = lru_cache(maxsize=5_000)(_run_of)
        self._signature = lru_cache(maxsize=5_000)(_signature_of)

    def models(self) -> Sequence[str]:
        """Those of every connection that a model may have there, by our names."""
        connections = {part.connection for part in self._parts().values()}
        return sorted({ours for name in connections for one in self._clients(name).registered_models() if (ours := self._ours(name, one))})

    def status(self, model: str) -> ServingStatus:
        of = self._of(model)
        registered = self._looked(of)
        moves = self._ledger.moves(model)
        serving = registered.aliases.get(of.part.serving_alias)
        if serving is None:
            raise NotFound(self._nothing_serves(of, moves))
        deployed = alias_moves.deployed(of.part.serving_alias, serving, moves)
        healthy, server_version = self._server(of, serving, deployed)
        return ServingStatus(
            model=model,
            serving_version=serving,
            previous_version=alias_moves.previous(of.part.serving_alias, serving, moves),
            staging_version=registered.aliases.get(of.part.candidate_alias),
            server_healthy=healthy,
            server_version=server_version,
            deployed_at=deployed.at if deployed else None,
        )

    def changes(self, model: str, *, since: datetime) -> Sequence[Change]:
        of = self._of(model)
        self._looked(of)
        return alias_moves.as_changes(self._ledger.moves(model), since=since)

    def versions(self, model: str) -> Sequence[ModelVersion]:
        """Runs and signatures are read of the newest and of those that an alias names: two requests each, once a process."""
        of = self._of(model)
        found = of.client.versions(of.name)
        registered = self._looked(of, found)
        whole = {one.version for one in found[-DESCRIBED:]} | set(registered.aliases.values())
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="mlflow") as pool:
            return list(pool.map(lambda one: self._described(of, one) if one.version in whole else described(one, None, None), found))

    def rollback(self, model: str, *, target_version: str, reason: str, rolled_back_by: str, idempotency_key: str) -> ServingStatus:
        self._serve(self._of(model), target_version, "rollback", rolled_back_by, idempotency_key)
        return self.status(model)

    def promote(self, model: str, *, version: str, reason: str, promoted_by: str, idempotency_key: str) -> ServingStatus:
        of = self._of(model)
        self._serve(of, version, "deployment", promoted_by, idempotency_key)
        if of.client.aliases(of.name).get(of.part.candidate_alias) == version:
            self._move(of, of.part.candidate_alias, None, "staging", promoted_by, f"{idempotency_key}-staging")
        return self.status(model)

    def stage(self, model: str, *, version: str | None, staged_by: str, idempotency_key: str) -> ServingStatus:
        of = self._of(model)
        if version is not None:
            of.version(version)
        self._move(of, of.part.candidate_alias, version, "staging", staged_by, idempotency_key)
        return self.status(model)

    def register(self, model: str, *, version: str, registered_by: str, idempotency_key: str) -> ModelVersion:
        """A training command registers with MLflow itself, which also numbers the version: there is nothing to enter here."""
        of = self._of(model)
        try:
            return self._described(of, of.version(version))
        except NotFound as error:
            raise NotFound(
                f"{error}. The training command must register what it trains: end it with "
                f"mlflow.register_model(model_uri, {of.name!r}), which gives the version its number"
            ) from error

    # ---

    def _parts(self) -> Mapping[str, RegistryPart]:
        """By model or pattern of the policy."""
        rules = self._policy.models.items()
        return {name: one.platform.registry for name, one in rules if one.platform is not None and one.platform.registry is not None}

    def _ours(self, connection: str, registered: Registered) -> str | None:
        """What the model is called here; None where policy maps it to nothing."""
        for name, part in self._parts().items():
            if not is_pattern(name) and part.connection == connection and (part.name or name) == registered.name:
                return name
        own = self._part(registered.name) if is_model_id(registered.name) else None
        return registered.name if own and own.connection == connection and own.name is None else None

    def _part(self, model: str) -> RegistryPart | None:
        platform = self._policy.rules_of(model).platform
        return platform.registry if platform else None

    def _owner(self, part: RegistryPart, model: str) -> str | None:
        """Whose registered model of this name is, where a pattern alone would say that it is `model`'s."""
        there = part.connection, part.name or model
        others = (name for name, one in self._parts().items() if (one.connection, one.name or name) == there)
        return next((name for name in others if name != model and not is_pattern(name)), None)

    def _of(self, model: str) -> _Model:
        platform = self._policy.rules_of(model).platform
        if platform is None or platform.registry is None:
            raise NotFound(f"policy names no registry for {model} (models.{model}.platform.registry)")
        if (owner := self._owner(platform.registry, model)) is not None:
            said = f"{model} of the registry is {owner} in policy (models.{owner}.platform.registry.name)"
            raise Refused(f"{said}: nothing is done to it as {model}; name {owner}")
        has_server = platform.serving is not Serving.NONE
        restarts = has_server and not platform.registry.server_follows
        return _Model(model, platform.registry, self._clients(platform.registry.connection), restarts, has_server)

    def _looked(self, of: _Model, versions: Sequence[Version] | None = None) -> Registered:
        """What the registry says now; the ledger hears of it."""
        mark = self._ledger.mark(of.id)
        registered = of.client.registered(of.name)
        aliases = {alias: registered.aliases.get(alias) for alias in (of.part.serving_alias, of.part.candidate_alias)}
        made_of = None if versions is None else {one.version: f"{one.source} of run {one.run_id or 'none'}" for one in versions}
        if made_of is None and aliases[of.part.serving_alias] is None:  # why it names nothing: the version may be deleted
            made_of = {one.version: f"{one.source} of run {one.run_id or 'none'}" for one in of.client.versions(of.name)}
        self._ledger.saw(Seen(of.id, aliases, made_of, of.part.serving_alias, mark=mark))
        return registered

    def _described(self, of: _Model, version: Version) -> ModelVersion:
        run = self._run(of.client, version.run_id) if version.run_id else None
        return described(version, run, self._signature(of.client, of.name, version.version, version.source))

    def _nothing_serves(self, of: _Model, moves: Sequence[Move]) -> str:
        last = alias_moves.last_of(of.part.serving_alias, moves)
        why = f" ({last.note}, seen {last.at:%Y-%m-%d %H:%M} UTC)" if last and last.note else ""
        return (
            f"no version of {of.name} carries the alias {of.part.serving_alias}{why}: roll back to a registered version, "
            f"or set it: MlflowClient().set_registered_model_alias({of.name!r}, {of.part.serving_alias!r}, VERSION)"
        )

    def _server(self, of: _Model, serving: str, deployed: Move | None) -> tuple[bool, str | None]:
        """Whether the server is healthy, and the version that it serves; None: nobody says. Unknown is not unhealthy."""
        if not of.has_server:
            return True, None
        try:
            seen = self._runtime.observe(of.id)
        except NotFound:
            return True, None
        except Transient:
            return False, None
        except Refused as error:
            log.warning("the server of %s cannot be seen: %s", of.id, error)
            return True, None
        return seen.ready_replicas > 0, self._answers(of, serving, deployed, seen)

    def _answers(self, of: _Model, serving: str, deployed: Move | None, seen: ServingState) -> str | None:
        """Pods carry a version only where they are released by it. Those that load what the alias names answer once the restart that we
        asked for is through."""
        if deployed is not None and of.restarts and not deployed.answered and deployed.key:
            if seen.restart_id != _restart_id(deployed.key):
                return deployed.before
            self._ledger.answered(deployed)
        if seen.version is None or of.restarts or of.part.server_follows:
            return None if seen.version != serving else serving
        return seen.version

    def _serve(self, of: _Model, version: str, kind: str, by: str, key: str) -> None:
        of.version(version)
        before = of.client.aliases(of.name).get(of.part.serving_alias)
        move = self._move(of, of.part.serving_alias, version, kind, by, key)
        if move is None:
            return
        if of.part.previous_alias and move.before not in (None, version):
            self._follow(of, of.part.previous_alias, str(move.before))
        if of.restarts and not move.answered:
            self._runtime.restart(of.id, restart_id=_restart_id(key))
        log.info("%s of %s: %s names %s, before %s", kind, of.name, of.part.serving_alias, version, before)

    def _move(self, of: _Model, alias: str, version: str | None, kind: str, by: str, key: str) -> Move | None:
        """Write down what is to be moved, move it, read it back. None: it names that version already, or this change was made before."""
        aliases = self._looked(of)
        before = aliases.aliases.get(alias)
        earlier = next((m for m in self._ledger.moves(of.id) if m.key == key), None)
        if earlier is None and before == version:
            return None
        if earlier is not None and earlier.made and before != version:
            return None  # made once, and moved by somebody since: that is theirs
        answered = not (of.restarts and alias == of.part.serving_alias)
        move = earlier or self._ledger.begin(
            Move(of.id, alias, before, version, self._now(), kind, by, key=key, made=False, answered=answered)
        )
        if before != version:
            self._set(of, alias, version)
            self._read_back(of, alias, version)
        return replace(move, made=True)

    def _set(self, of: _Model, alias: str, version: str | None) -> None:
        if version is None:
            of.client.write("DELETE", _ALIAS, {"name": of.name, "alias": alias})
        else:
            of.client.write("POST", _ALIAS, {"name": of.name, "alias": alias, "version": version})

    def _read_back(self, of: _Model, alias: str, version: str | None) -> None:
        registered = self._looked(of)
        if (now := registered.aliases.get(alias)) != version:
            raise Unknown(f"{alias} of {of.name} was set to {version} and reads back as {now}: somebody else moves it at the same time")

    def _follow(self, of: _Model, alias: str, version: str) -> None:
        """An alias that is for people and scripts: a rollback does not fail for it."""
        try:
            self._set(of, alias, version)
        except RunbookError as error:
            log.warning("%s of %s does not name %s: %s", alias, of.name, version, error)


def _restart_id(key: str) -> str:
    return f"registry-{key}"


def _run_of(client: MlflowClient, run_id: str) -> Run | None:
    """What a run that ended was given does not change. None: it was deleted."""
    try:
        return client.run(run_id)
    except NotFound:
        return None


def _signature_of(client: MlflowClient, name: str, version: str, source: str) -> tuple[str, ...] | None:
    return client.features(name, version)
