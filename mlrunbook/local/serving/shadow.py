"""The version in staging: it scores what is served, for the log alone. Nothing it does may harm an answer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from mlrunbook.local.platform import registry
from mlrunbook.local.platform.artefacts import LoadedModel

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


class Shadow:
    """Follows the registry's staging slot. `error` says why what is staged is not loaded, or failed to score."""

    def __init__(self, model: str, models_dir: Path) -> None:
        self._model, self._models_dir = model, models_dir
        self._loaded: LoadedModel | None = None
        self.error: str | None = None

    @property
    def version(self) -> str | None:
        loaded = self._loaded
        return loaded.manifest.version if loaded else None

    def follow(self, conn: Connection, wanted: str | None) -> None:
        """Load `wanted` if it is another version; what cannot be loaded leaves nothing in the shadow."""
        if wanted == self.version:
            if wanted is None:
                self.error = None
            return
        try:
            fresh = registry.load(conn, self._models_dir, self._model, wanted) if wanted else None
            if fresh:
                fresh.check_scores(nulls=True)
            self._loaded, self.error = fresh, None
        except SQLAlchemyError:
            raise
        except Exception as error:
            self._loaded = None
            self._note(f"{wanted} in staging cannot be loaded: {error}", error)

    def score(self, frame: pd.DataFrame, *, serving: str) -> tuple[str | None, list[float] | list[None]]:
        """The staged version and its score for each row, None where it failed; no version when nothing but `serving` is staged."""
        loaded, nothing = self._loaded, [None] * len(frame)
        if loaded is None or loaded.manifest.version == serving:
            return None, nothing
        version = loaded.manifest.version
        try:
            scores: list[float] = loaded.score(frame).tolist()
        except Exception as error:
            self._note(f"{version} in staging cannot score: {error}", error)
            return version, nothing
        return version, scores

    def _note(self, problem: str, error: Exception) -> None:
        """Log it once, not with every request."""
        if self.error != problem:
            log.warning("%s", problem, exc_info=error)
            self.error = problem
