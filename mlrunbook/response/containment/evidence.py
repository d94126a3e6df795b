"""Preserve what the world looks like before the first change (EU AI Act Art. 73(6); runbook Step 2, "Preserve logs")."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from mlrunbook.base.concurrent_reads import read_all
from mlrunbook.domain.blackout import without_secrets
from mlrunbook.domain.containment.evidence import MANIFEST, Bundle, File, faults, manifest
from mlrunbook.domain.detection.reports import FirstReport
from mlrunbook.domain.errors import RunbookError
from mlrunbook.ports import MISSING
from mlrunbook.response.containment import breach
from mlrunbook.response.measurement import recent_changes
from mlrunbook.response.run import Run
from mlrunbook.response.world import World
from mlrunbook.store import alerts, evidence, records, timeline

SAMPLE_ROWS, SAMPLE_ROWS_OF_BREACH = 500, 5_000
LOG_LINES = 500
CHANGES_BACK = timedelta(days=7)
WITHIN_S = 60.0  # isolation waits for the evidence, and nothing answers for longer that is not hung
RUNTIME = "runtime"


def preserve(run: Run, *, within_s: float = WITHIN_S) -> list[str]:
    """Metrics, prediction sample, config, serving state, registry state, logs and the alerts into the store, with a manifest; of a breach
    also recent changes, more of the prediction log, and all that the runtime has to show.

    A source that cannot be read, or not `within_s` seconds, is named in the manifest with the reason: that, too, is evidence. Secrets
    are blacked out. It is kept whole or not at all, and what is kept stands; a second call adds nothing. Returns the names kept.
    """
    with run.world.transaction() as conn:
        kept = evidence.manifest(conn, run.incident_id)
    if kept:
        return [item.name for item in kept]
    bundle = _collect(run, within_s)
    now = run.world.now()
    listed = manifest(run.incident_id, bundle, taken_at=now)
    with run.write() as conn:
        for file in (*bundle.files, File(MANIFEST, listed, "application/json")):
            evidence.preserve(conn, run.incident_id, file.name, file.content, file.media_type, now=now)
        digests = {file.name: file.sha256 for file in bundle.files}
        digest = hashlib.sha256(listed).hexdigest()
        lost = f"; not readable: {', '.join(sorted(bundle.missing))}" if bundle.missing else ""
        run.note(
            conn,
            "evidence",
            f"Evidence preserved: {', '.join(sorted(digests))}{lost}; {MANIFEST} has SHA-256 {digest}",
            {"sha256": digests, "manifest": digest, "missing": dict(bundle.missing)},
        )
        return [item.name for item in evidence.manifest(conn, run.incident_id)]


def check(world: World, incident_id: str) -> list[str] | None:
    """What of the kept bundle no longer fits its manifest, or that its digest on the timeline; None: nothing was preserved."""
    with world.transaction() as conn:
        noted = next((e for e in timeline.of_kind(conn, incident_id, "evidence") if "manifest" in e.data), None)
        listed = evidence.content(conn, incident_id, MANIFEST)
        if noted is None:
            return None
        if listed is None:
            return [f"{MANIFEST} is gone"]
        return faults(listed[0], evidence.digests(conn, incident_id), digest=str(noted.data["manifest"]))


def _collect(run: Run, within_s: float) -> Bundle:
    model, world, grave = run.incident().model, run.world, breach.is_breach(run)
    rows = SAMPLE_ROWS_OF_BREACH if grave else SAMPLE_ROWS
    sources: dict[str, Callable[[], Any]] = {
        "alerts.json": lambda: _reported(run),
        "metrics.json": lambda: asdict(world.platform.metrics(model)),
        "predictions.json": lambda: [asdict(p) for p in world.platform.prediction_log(model, limit=rows)],
        "serving-status.json": lambda: asdict(world.platform.status(model)),
        "serving-state.json": lambda: asdict(world.runtime.observe(model)),
        "config.json": lambda: asdict(world.runtime.read_config(model)),
    }
    if grave:
        since = world.now() - CHANGES_BACK
        sources["changes.json"] = lambda: [asdict(c) for c in recent_changes.of_model(world, model, since=since)]
        sources[RUNTIME] = lambda: dict(world.runtime.preserve(model))
    else:
        sources["model-server.log"] = lambda: world.runtime.logs(model, tail=LOG_LINES)
    files: list[File] = []
    missing: dict[str, str] = {}
    for name, found in read_all(sources, within_s=within_s).items():
        if isinstance(found, RunbookError):
            missing[name] = str(found)
        elif name == RUNTIME:
            _add_runtime(found, files, missing)
        else:
            files.append(_file(name, found))
    return Bundle(files, missing)


def _add_runtime(found: Mapping[str, bytes], files: list[File], missing: dict[str, str]) -> None:
    for name, content in found.items():
        if name.endswith(MISSING):
            missing[f"runtime/{name.removesuffix(MISSING)}"] = content.decode(errors="replace")
        else:
            files.append(_file(f"runtime/{name}", content))


def _reported(run: Run) -> dict[str, Any]:
    incident = run.incident()
    with run.world.transaction() as conn:
        fired = [dict(row) for row in alerts.of_incident(conn, run.incident_id)]
        first = records.recall(conn, run.incident_id, FirstReport)
        return {"incident": asdict(incident), "report": first.to_record() if first else None, "alerts": fired}


def _file(name: str, value: Any) -> File:
    raw = value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value, default=str, indent=1)).encode()
    content, removed = without_secrets(raw)
    return File(name, content, "application/json" if name.endswith(".json") else "text/plain", removed)
