"""Attacks by data and text that others hand over: each says what is tried, and returns True if it worked."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.promises.site import Site
from mlrunbook.adapters.channels.delivery import deliver
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.errors import RunbookError
from mlrunbook.local.platform import artefacts
from mlrunbook.local.platform import columns as features
from mlrunbook.ports import Message
from tests.local.platform.kit import log, reading, release, save_version

MODEL = "attacked"
Spoil = Callable[[Any], None]
WITHIN_S = 30.0


def _cycle(nodes: Any) -> None:
    nodes["left"][0] = nodes["right"][0] = 0
    nodes["is_leaf"][0] = 0


def _child_out_of_bounds(nodes: Any) -> None:
    nodes["left"][:] = nodes["right"][:] = 2**31 - 1
    nodes["is_leaf"][:] = 0


def _child_close_by(nodes: Any) -> None:
    nodes["left"] += 100_000
    nodes["right"] += 100_000


def _feature_out_of_bounds(nodes: Any) -> None:
    nodes["feature_idx"][:] = 2**30
    nodes["is_leaf"][0] = 0


def _not_a_number(nodes: Any) -> None:
    nodes["value"][:] = np.nan


def _score_of(folder: str, out: Any) -> None:
    try:
        model = artefacts.load(Path(folder))
        scores = model.score(features.as_frame([reading(80.0), reading(None)]))
        out.send("sound" if np.isfinite(scores).all() and ((scores >= 0) & (scores <= 1)).all() else "scores that are no probabilities")
    except Exception as error:
        out.send(f"refused: {type(error).__name__}")


def a_model_file_crashes_hangs_or_scores_nonsense(site: Site) -> bool:
    """Trees with a cycle, with children and features out of bounds, and with leaves that are no numbers, under a right checksum."""
    models = site.config.models_dir
    for n, spoil in enumerate((_cycle, _child_out_of_bounds, _child_close_by, _feature_out_of_bounds, _not_a_number)):
        save_version(models, MODEL, f"v1.{n}.0")
        _rewrite(models / MODEL / f"v1.{n}.0", spoil)
        ours, theirs = get_context("fork").Pipe(duplex=False)
        process = get_context("fork").Process(target=_score_of, args=(str(models / MODEL / f"v1.{n}.0"), theirs))
        process.start()
        theirs.close()
        said = ""
        if ours.poll(WITHIN_S):
            try:
                said = ours.recv()
            except EOFError:
                said = "the process died"
        process.kill()
        process.join()
        if not said.startswith(("refused", "sound")):
            return True
    return False


def _rewrite(folder: Path, spoil: Spoil) -> None:
    import skops.io

    file = folder / "model.skops"
    estimator = skops.io.loads(file.read_bytes(), trusted=skops.io.get_untrusted_types(data=file.read_bytes()))
    trees = estimator if hasattr(estimator, "_predictors") else estimator[-1]
    for some in trees._predictors:
        for tree in some:
            spoil(tree.nodes)
    data = skops.io.dumps(estimator)
    file.write_bytes(data)
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"sha256": hashlib.sha256(data).hexdigest()}))


def the_ground_truth_is_rewritten_unnoticed(site: Site) -> bool:
    """Whoever may post outcomes flips those that somebody else gave for 500 predictions of weeks ago: the model then looks broken."""
    model, feed, stranger = "rewritten", site.key("maintenance records", Scope.OUTCOMES), site.key("another caller", Scope.OUTCOMES)
    release(site.engine, site.config.models_dir, model, "v1.0.0")
    log(site.engine, model, tp=20, fn=5, fp=5, tn=470, at=datetime.now(UTC) - timedelta(days=20))
    http, reader = site.http("platform"), site.key("a reader", Scope.READ)
    ids = [n for (n,) in site.sql("SELECT id FROM platform.predictions WHERE model = :m ORDER BY id", m=model)]
    truth = {n: failed for n, failed in site.sql("SELECT id, outcome FROM platform.predictions WHERE model = :m", m=model)}
    for key, flip in ((feed, False), (stranger, True)):
        body = {"outcomes": [{"predictionId": n, "failed": bool(truth[n]) != flip} for n in ids]}
        http.post("/api/v1/ml/predictions/outcomes", headers=key, json=body)
    since = (datetime.now(UTC) - timedelta(days=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    answer = http.get(f"/api/v1/model-performance/metrics/{model}?since={since}", headers=reader).json()["current"]
    flipped = [bool(now) != bool(truth[n]) for n, now in site.sql("SELECT id, outcome FROM platform.predictions WHERE model = :m", m=model)]
    return any(flipped) and not answer.get("rewritten")


def alert_text_pings_or_misleads_in_a_chat(site: Site) -> bool:
    """Alert text that pings everybody or hides where a link leads, as each chat service gets it; requests are caught on their way."""
    import requests

    caught: list[str] = []

    class Taken:
        status_code, content, text, headers = 200, b'{"ok": true}', '{"ok": true}', {"X-RateLimit-Remaining": "99"}

        def json(self) -> dict[str, Any]:
            return {"ok": True}

    def take(*_: Any, **given: Any) -> Taken:
        caught.append(str(given.get("data") or given.get("json")))
        return Taken()

    hostile = "<!everyone> <!here|x> <@U024BE7LH> @everyone @here <https://evil.example|https://good.example> [good](https://evil.example)"
    worked = ("<!everyone>", "<!here", "<@U024BE7LH>", "@everyone", "@here", "<https://evil.example|", "](https://evil.example)")
    known = requests.post, requests.request
    requests.post = requests.request = take  # type: ignore[assignment]
    try:
        for address in CHATS:
            with contextlib.suppress(RunbookError):  # what this double answers is not what each service says
                deliver(Message("k", "incident_1", "page", hostile, hostile, page=True, severity="high"), address)
    finally:
        requests.post, requests.request = known
    assert len(caught) >= len(CHATS), "a chat was not reached"
    return any(part in text for text in caught for part in worked)


CHATS = (
    "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#channel",
    f"discord://1234567890/{'a' * 68}",
    "mmost://localhost/3ccdd113474722377935511fc85d3dd4",
)
ATTACKS = (
    the_ground_truth_is_rewritten_unnoticed,
    alert_text_pings_or_misleads_in_a_chat,
    a_model_file_crashes_hangs_or_scores_nonsense,
)
