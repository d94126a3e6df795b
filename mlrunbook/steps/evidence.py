"""Preserve what the world looks like before the first change (EU AI Act Art. 73(6); runbook Step 2, "Preserve logs")."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from mlrunbook.domain.errors import RunbookError
from mlrunbook.steps.run import Run
from mlrunbook.store import evidence

SAMPLE_ROWS = 500
LOG_LINES = 500


def preserve(run: Run) -> list[str]:
    """Metrics, prediction sample, config, serving state, registry state and logs into the store, each with its SHA-256.

    A source that cannot be read is kept as the sentence that says so: that, too, is evidence. What is kept stands; a second call
    adds nothing. Returns the names kept.
    """
    with run.world.transaction() as conn:
        kept = evidence.manifest(conn, run.incident_id)
    if kept:
        return [item.name for item in kept]
    model, world = run.incident().model, run.world
    sources: dict[str, Callable[[], Any]] = {
        "metrics.json": lambda: asdict(world.platform.metrics(model)),
        "predictions.json": lambda: [asdict(p) for p in world.platform.prediction_log(model, limit=SAMPLE_ROWS)],
        "serving-status.json": lambda: asdict(world.platform.status(model)),
        "serving-state.json": lambda: asdict(world.runtime.observe(model)),
        "config.json": lambda: asdict(world.runtime.read_config(model)),
        "model-server.log": lambda: world.runtime.logs(model, tail=LOG_LINES),
    }
    taken = {name: _read(source) for name, source in sources.items()}
    with run.write() as conn:
        for name, (content, media_type) in taken.items():
            evidence.preserve(conn, run.incident_id, name, content, media_type, now=world.now())
        manifest = evidence.manifest(conn, run.incident_id)
        digests = {item.name: item.sha256 for item in manifest}
        run.note(conn, "evidence", f"Evidence preserved: {', '.join(digests)}", {"sha256": digests})
    return list(digests)


def _read(source: Callable[[], Any]) -> tuple[bytes, str]:
    try:
        value = source()
    except RunbookError as error:
        return f"not readable: {error}".encode(), "text/plain"
    if isinstance(value, str):
        return value.encode(), "text/plain"
    return json.dumps(value, default=str, indent=1).encode(), "application/json"
