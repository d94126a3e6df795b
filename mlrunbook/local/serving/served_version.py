"""The version that this process serves: as the registry and the route override say; one that cannot be loaded leaves what it has."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine

from mlrunbook.adapters.local import serving_config
from mlrunbook.base import json_file
from mlrunbook.base.db import transaction
from mlrunbook.base.settings import Settings
from mlrunbook.domain.errors import NotFound, RunbookError, Transient
from mlrunbook.domain.observed import ServingConfig
from mlrunbook.local.platform import registry, schemas
from mlrunbook.local.platform.artefacts import LoadedModel
from mlrunbook.local.serving.shadow import Shadow

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NotLoaded:
    """A version that shall serve and cannot be loaded, since when, and why. What served before goes on serving."""

    version: str
    since: datetime
    error: str


@dataclass(frozen=True)
class Doubt:
    """The last request that the version failed to score, and why. `disabled`: it fails on typical readings too, so it serves nobody."""

    loaded: LoadedModel
    at: datetime
    error: str
    disabled: str | None = None


class Serving:
    """What this process serves now. `refresh` follows the registry; everything else only looks."""

    def __init__(self, model: str, config: Settings, engine: Engine, *, restart_id: str | None) -> None:
        self.model, self.restart_id = model, restart_id
        self.started_at = datetime.now(UTC)
        self.loaded: LoadedModel | None = None
        self.route: str | None = None
        self.not_loaded: NotLoaded | None = None
        self._unknown: str | None = None  # why nobody can tell what is wanted
        self._doubt: Doubt | None = None
        self.shadow = Shadow(model, config.models_dir)
        self._models_dir, self._config_file, self._state_file = config.models_dir, config.serving_config_file, config.serving_state_file
        self._engine = engine
        self._config: ServingConfig | None = serving_config.read(self._config_file) if self._config_file.exists() else None
        self._seen: tuple[int, int] | None = None
        self._isolated: tuple[tuple[int, int] | None, bool] = (None, False)

    @property
    def error(self) -> str | None:
        """Why what is wanted is not served."""
        failed = self.not_loaded
        return self._unknown or (failed.error if failed else None)

    def refresh(self) -> None:
        """Load the wanted version if it is another one. What cannot be loaded leaves the old one serving, and `error` says why."""
        try:
            self.route = json_file.read(self._state_file).get("route_version") if self._state_file.exists() else None
            with transaction(self._engine) as conn:
                try:
                    slots = registry.slots(conn, self.model)
                    wanted, staged = self.route or slots.serving, slots.staging
                except NotFound:  # nothing registered yet
                    wanted = staged = None
                current = self.loaded
                self.shadow.follow(conn, staged)
                self._look_again()
                if wanted and (current is None or current.manifest.version != wanted):
                    self._load(conn, wanted)
                else:
                    self.not_loaded = None
            self._unknown = None
        except RunbookError as error:
            if self._unknown != str(error):
                log.warning("%s", error)
            self._unknown = str(error)

    def _load(self, conn: Connection, wanted: str) -> None:
        try:
            fresh = registry.load(conn, self._models_dir, self.model, wanted)
            fresh.check_scores(nulls=True)  # it must be able to score before it may serve
        except Transient:
            raise
        except Exception as error:  # whatever a model raises, it does not serve
            said = str(error) if isinstance(error, RunbookError) else f"{wanted} cannot score: {first_line(error)}"
            before = self.not_loaded
            if before is None or (before.version, before.error) != (wanted, said):
                same = before is not None and before.version == wanted
                self.not_loaded = NotLoaded(wanted, before.since if before and same else datetime.now(UTC), said)
                log.error("%s %s cannot be loaded, %s: %s", self.model, wanted, self._instead(), said)
            return
        if self._config is None:
            self._config = serving_config.ensure(self._config_file, threshold=fresh.manifest.threshold)
        self.loaded, self.not_loaded = fresh, None

    def note_scoring_failure(self, loaded: LoadedModel, error: Exception) -> None:
        """A request could not be scored: was it the request, or can the version no longer score at all?"""
        self._doubt = Doubt(loaded, datetime.now(UTC), first_line(error), disabled=_why_it_cannot_score(loaded))

    def _look_again(self) -> None:
        """A version that could not score may have lacked memory for a moment."""
        doubt = self._doubt
        if doubt is not None and doubt.disabled:
            self._doubt = replace(doubt, disabled=_why_it_cannot_score(doubt.loaded))

    @property
    def doubt(self) -> Doubt | None:
        """Of the version that is loaded now."""
        return self._doubt if self._doubt and self._doubt.loaded is self.loaded else None

    @property
    def disabled(self) -> str | None:
        """Why what is loaded cannot serve anybody."""
        return self.doubt.disabled if self.doubt else None

    def _instead(self) -> str:
        return f"{self.loaded.manifest.version} goes on serving" if self.loaded else "nothing serves"

    def config(self) -> ServingConfig | None:
        """As this process runs with it: switches as the file says now, threshold as at the start.

        The revision is the newest one that is in effect completely, so a new threshold shows there only after a restart.
        """
        if self._config is None:
            return None
        try:
            stat = self._config_file.stat()
            seen = (stat.st_ino, stat.st_mtime_ns)
            if seen != self._seen:
                stored = serving_config.read(self._config_file)
                whole = stored.threshold == self._config.threshold
                revision = stored.revision if whole else self._config.revision
                self._config = replace(stored, threshold=self._config.threshold, revision=revision)
                self._seen = seen
        except (OSError, RunbookError) as error:
            log.warning("the config file cannot be read, going on with what was loaded: %s", error)
        return self._config

    def isolated(self) -> bool:
        """As the desired state says now. While it cannot be read, what it said last holds."""
        try:
            stat = self._state_file.stat()
            if self._isolated[0] != (seen := (stat.st_ino, stat.st_mtime_ns)):
                self._isolated = (seen, json_file.read(self._state_file).get("isolated") is True)
        except FileNotFoundError:
            return False
        except (OSError, RunbookError) as error:
            log.warning("the desired state cannot be read, isolated stays %s: %s", self._isolated[1], error)
        return self._isolated[1]

    def health(self) -> dict[str, Any]:
        loaded, config, failed, doubt = self.loaded, self.config(), self.not_loaded, self.doubt
        body: dict[str, Any] = {
            "status": "no_model" if not loaded else "cannot_score" if self.disabled else "ok",
            "model": self.model,
            "version": loaded.manifest.version if loaded else None,
            "startedAt": self.started_at,
            "restartId": self.restart_id,
            "routeVersion": self.route,
            "isolated": self.isolated(),
            "stagingVersion": self.shadow.version,
            "stagingError": self.shadow.error,
            "error": self._unknown or (failed.error if failed else None) or self.disabled,
            "scoringError": {"at": doubt.at, "error": doubt.error} if doubt else None,
            "notLoaded": vars(failed) if failed else None,
            "configRevision": config.revision if config else None,
            "config": None,
        }
        if config:
            body["config"] = {key: value for key, value in schemas.config(config).items() if key != "revision"}
        return body


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _why_it_cannot_score(loaded: LoadedModel) -> str | None:
    try:
        loaded.check_scores(nulls=True)
    except Exception as error:
        return f"{loaded.manifest.version} cannot score typical readings: {first_line(error)}"
    return None
