"""Several models side by side: each its own `FileWorld`, behind one platform and one runtime that look a model up by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlrunbook.domain.errors import NotFound
from tests.fakes import FileWorld


class FileFleet:
    """Platform and runtime of all these models: every verb that names a model goes to that model's world, and to no other."""

    def __init__(self, *worlds: FileWorld) -> None:
        self.of = {world.model: world for world in worlds}

    def models(self) -> Sequence[str]:
        return sorted(self.of)

    def alerts(self, model: str | None = None) -> Sequence[Mapping[str, Any]]:
        return []

    def feature_schedules(self) -> Sequence[Any]:
        raise NotFound("this platform runs no materialisation")

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        def ask(model: str, *args: Any, **how: Any) -> Any:
            if model not in self.of:
                raise NotFound(f"there is no model {model!r}")
            return getattr(self.of[model], verb)(model, *args, **how)

        return ask
