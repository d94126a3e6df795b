"""What can befall the serving side: a process that is starved or hangs, callers that send nonsense, a release that cannot be loaded."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import psutil

from mlrunbook.domain.errors import Invalid
from mlrunbook.drills.simulator.traffic import as_features
from mlrunbook.local.platform.columns import engineer

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def process(pid: int | None) -> psutil.Process:
    """The model server's process. Invalid when nobody knows it: this machine does not run it."""
    if pid is None:
        raise Invalid("this fault befalls the model server's process, which does not run here", field="fault")
    return psutil.Process(pid)


class CpuLimit:
    """A limiter somebody attached to a busy process and forgot: it lets it run for `share` of each `period_s`, by SIGSTOP and SIGCONT, as
    cpulimit(1) does. A new process is rid of it.
    """

    def __init__(self, limited: psutil.Process, *, share: float, period_s: float) -> None:
        self._process, self._run_s, self._stop_s = limited, share * period_s, (1 - share) * period_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._limit, name="cpu-limit", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """The process runs freely afterwards."""
        self._ended.set()
        self._thread.join()

    def _limit(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):  # a number that has passed to a stranger counts as gone
            while not self._ended.is_set():
                self._process.suspend()
                self._ended.wait(self._stop_s)
                self._process.resume()
                self._ended.wait(self._run_s)


def in_words(readings: pd.DataFrame) -> list[dict[str, Any]]:
    """Assets as a new release of a gateway sends them: the speed with its unit, as text."""
    features = as_features(readings)
    sent = [f | {"rotational_speed_rpm": f"{f['rotational_speed_rpm']:.0f} rpm"} for f in features]
    return [{"assetId": asset_id, "features": f} for asset_id, f in zip(readings["asset_id"], sent, strict=True)]


def strict_estimator(frame: pd.DataFrame, labels: np.ndarray[Any, Any], *, columns: Sequence[str]) -> Any:
    """A sound model of another kind: it takes no missing value, which nobody tried before it was released."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression()).fit(engineer(frame)[list(columns)].to_numpy(), labels)
