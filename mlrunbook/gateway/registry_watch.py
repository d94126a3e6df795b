"""Looks at the registries that tell of no change by themselves: at every model once a minute, and at once where a webhook says that
something moved. What has moved is in our ledger then, and on the timeline of open incidents.

In a thread of its own: a registry that takes long delays no page.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from mlrunbook.domain.errors import NotFound, RunbookError, Transient
from mlrunbook.domain.policy.owned import is_model_id
from mlrunbook.domain.policy.patterns import is_pattern
from mlrunbook.response.measurement.recent_changes import has_ledger
from mlrunbook.response.world import World
from mlrunbook.store import recent_changes

log = logging.getLogger("mlrunbook.dispatcher")

EVERY_S = 60.0
VERSIONS_EVERY = 10  # looks: what the versions are made of changes seldom, and reading it is more than one request
HINTS = "mlflow"  # the webhooks' source


class RegistryWatch:
    """`look()` is asked every second or so, and most times has nothing to do."""

    def __init__(self, world: World, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._world, self._monotonic = world, monotonic
        self._due_at, self._looks, self._hints_until = monotonic(), 0, world.now()
        self._away: set[str] = set()
        self._silent: set[str] = set()  # connections that did not answer in this look
        self._seen_hints: dict[str, datetime] = {}
        registries = [rules.platform.registry for rules in world.policy.models.values() if rules.platform]
        self._is_needed = any(registries)

    def look(self) -> int:
        """How many models were looked at."""
        if not self._is_needed:
            return 0
        hinted = self._hinted()
        if self._monotonic() < self._due_at:
            return self._look_at_all(hinted, with_versions=False)
        self._due_at = self._monotonic() + EVERY_S
        with_versions = self._looks % VERSIONS_EVERY == 0
        self._looks += 1
        return self._look_at_all(self._models() | hinted, with_versions=with_versions)

    def _hinted(self) -> set[str]:
        """Models of which a webhook has told since the last look."""
        since, self._hints_until = self._hints_until, self._world.now()
        with self._world.transaction() as conn:
            told = recent_changes.models_told(conn, source=HINTS, since=since - timedelta(seconds=2))
        return {model for model, at in told.items() if has_ledger(self._world.policy, model) and self._is_new(model, at)}

    def _is_new(self, model: str, at: datetime) -> bool:
        """A hint is looked into once; those of the last seconds may have been committed late."""
        known = self._seen_hints.get(model)
        self._seen_hints[model] = at
        return known != at

    def _models(self) -> set[str]:
        """Those that policy names, and those that the registry lists and a pattern of policy covers."""
        policy = self._world.policy
        named = {name for name in policy.models if not is_pattern(name)}
        patterns = any(is_pattern(name) and rules.platform and rules.platform.registry for name, rules in policy.models.items())
        if patterns:
            try:
                named |= {name for name in self._world.platform.models() if is_model_id(name)}
            except RunbookError as error:
                self._say_once("the list of models", error)
        return {name for name in named if has_ledger(policy, name)}

    def _look_at_all(self, models: set[str], *, with_versions: bool) -> int:
        """A registry that does not answer costs one time-out a look, not one for each of its models: those of another would wait. What
        failed before comes last, so that it keeps no other from its turn."""
        looked, self._silent = 0, set()
        for model in sorted(models, key=lambda one: (one in self._away, one)):
            if self._connection(model) not in self._silent:
                looked += self._look_at(model, with_versions=with_versions)
        return looked

    def _connection(self, model: str) -> str | None:
        parts = self._world.policy.rules_of(model).platform
        return parts.registry.connection if parts and parts.registry else None

    def _look_at(self, model: str, *, with_versions: bool) -> bool:
        """Reading it is what writes the ledger. One model that cannot be read keeps no other from being looked at."""
        try:
            if with_versions:
                self._world.platform.versions(model)
            else:
                self._world.platform.changes(model, since=self._world.now())
        except NotFound as error:
            log.debug("%s", error)
        except RunbookError as error:
            self._say_once(model, error)
            if isinstance(error, Transient) and (connection := self._connection(model)):
                self._silent.add(connection)
            return False
        self._away.discard(model)
        return True

    def _say_once(self, what: str, error: RunbookError) -> None:
        if what not in self._away:
            log.warning("the registry cannot be looked at for %s: %s", what, error)
        self._away.add(what)
