"""What `/health` says of the feature store, from probes that fail, hang or come back. The clock is the test's."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from mlrunbook.domain.errors import Transient
from mlrunbook.local.serving.feature_watch import HUNG, FeatureWatch, Seen
from tests.local.platform.kit import NOW
from tests.waiting import until


class Source:
    """A feature store that works, fails with `error`, or hangs until `gate` opens."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def start(self) -> None: ...
    def stop(self) -> None: ...

    def probe(self) -> None:
        self.gate.wait(timeout=120)
        if self.error:
            raise self.error

    def read(self, asset_ids: Sequence[str]) -> list[dict[str, Any]]:
        raise NotImplementedError


class Scene:
    def __init__(self) -> None:
        self.now, self.source = NOW, Source()
        self.watch = FeatureWatch(self.source, clock=lambda: self.now)

    def after(self, seconds: float, error: Exception | None = None) -> Seen:
        self.now, self.source.error = NOW + timedelta(seconds=seconds), error
        self.watch.look()
        return self.watch.seen()


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


LOCKED = Transient("the online store is locked")


def test_a_failure_counts_from_its_first_probe_until_a_read_works() -> None:
    scene = Scene()
    assert scene.after(1) == Seen("ok", at(1))
    assert scene.after(3, LOCKED) == Seen("failing", at(3), at(3), "the online store is locked")
    assert scene.after(5, KeyError("x")) == Seen("failing", at(5), at(3), "KeyError: 'x'")
    assert scene.after(7) == Seen("ok", at(7))
    assert scene.after(9, LOCKED).failing_since == at(9)


def test_until_the_first_read_it_is_loading_for_half_a_minute_and_failing_from_then_on() -> None:
    scene = Scene()
    assert scene.watch.seen() == Seen("loading")
    assert scene.after(1, LOCKED) == Seen("loading", at(1), error="the online store is locked")
    assert scene.after(29.9, LOCKED).state == "loading"
    assert scene.after(30, LOCKED) == Seen("failing", at(30), at(1), "the online store is locked")


def test_a_probe_that_never_ends_is_a_failure_too_and_nobody_waits_for_it() -> None:
    scene = Scene()
    scene.after(1)
    scene.source.gate.clear()
    scene.now = at(3)
    hanging = threading.Thread(target=scene.watch.look, daemon=True)
    hanging.start()
    until(lambda: scene.watch._asked_at is not None)
    scene.now = at(3) + HUNG - timedelta(seconds=0.1)
    assert scene.watch.seen().state == "ok"
    scene.now = at(3) + HUNG
    assert scene.watch.seen() == Seen("failing", at(1), at(3), "a read has not ended for 5 s")
    scene.source.gate.set()
    hanging.join(timeout=120)
    assert scene.watch.seen() == Seen("ok", at(3) + HUNG)


def test_on_the_wire_it_is_camel_case() -> None:
    assert Seen("ok", NOW).as_wire() == {"state": "ok", "checkedAt": NOW, "failingSince": None, "error": None}
