"""Which names are models: what the registry and policy know, asked so that nobody is kept waiting for the registry.

The registry is asked in a thread of its own. Who needs the answer waits a moment for it; without one every name is accepted, because
pages fail open. Never ask while a transaction is open.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mlrunbook.domain.errors import NotFound, RunbookError
from mlrunbook.domain.policy.owned import Known, Standing, did_you_mean, is_model_id, unknown_words
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.ports import ModelPlatform

log = logging.getLogger(__name__)

MOST_HINTS = 25  # of one message: looking for what was meant by thousands of names takes longer than anybody waits
WAIT_S = 2.0
REGISTERED_FOR = timedelta(seconds=60)  # how long an answer counts: a model is not taken out of the registry every minute,
UNKNOWN_FOR = timedelta(seconds=5)  # but whoever has just registered one must not wait
SLOW_S = 0.5  # a question that failed and took this long is not asked again at once
ASK_AGAIN_AFTER_S = 5.0
GIVEN_UP_AFTER_S = 30.0  # a question without an answer for so long no longer keeps another from being asked


MaySee = Callable[[str], bool]


def _everything(_: str) -> bool:
    return True


@dataclass
class _Question:
    """One round of reads about these names. `done` also when it failed."""

    models: frozenset[str]
    failed: bool = False
    begun: float = field(default_factory=time.monotonic)
    done: threading.Event = field(default_factory=threading.Event)


class KnownModels:
    """Thread-safe. `of` takes at most `wait_s`, however long the platform takes."""

    def __init__(self, platform: ModelPlatform, now: Callable[[], datetime], *, wait_s: float = WAIT_S) -> None:
        self.platform, self._now, self._wait_s = platform, now, wait_s
        self._lock = threading.Lock()
        self._question: _Question | None = None
        self._quiet_until = 0.0  # monotonic
        self._answers: dict[str, tuple[bool, datetime]] = {}
        self._listed: frozenset[str] = frozenset()

    def of(self, policy: Policy, models: Iterable[str], *, fresh: bool = False, may_see: MaySee = _everything) -> dict[str, Standing]:
        """What is known of each name. `fresh`: do not trust an earlier "unknown"; a person may just have registered it. `may_see`: which
        models whoever asks may hear of."""
        wanted = set(models)
        asked = {model for model in wanted if not policy.names(model)}
        found = self._registered(asked, fresh=fresh)
        hints = sum(not found.get(model, True) for model in asked) <= MOST_HINTS
        named = [name for name in {*self._listed, *policy.named_models} if may_see(name)] if hints else []
        return {model: _standing(model, found.get(model) if model in asked else True, named) for model in wanted}

    @property
    def listed(self) -> frozenset[str]:
        """What the registry listed when it was asked last; nobody is kept waiting for it."""
        with self._lock:
            return self._listed

    def demand(self, policy: Policy, model: str) -> None:
        """NotFound, with what to do, for a name that nobody knows."""
        standing = self.of(policy, [model], fresh=True)[model]
        if standing.is_unknown:
            raise NotFound(refusal(model, standing.hint))

    def _registered(self, models: set[str], *, fresh: bool) -> Mapping[str, bool]:
        """What the registry says of each; a name without an answer is left out."""
        deadline = time.monotonic() + self._wait_s
        while True:
            with self._lock:
                answers = {model: self._answers[model][0] for model in models if self._counts(model, fresh)}
                left = models - answers.keys()
                question = self._ask(left) if left else None
            if question is None:
                return answers
            is_answered = question.done.wait(max(0.0, min(deadline, question.begun + self._wait_s) - time.monotonic()))
            if not is_answered or (question.failed and left <= question.models):
                return answers
            fresh = False  # what has been answered meanwhile is

    def _counts(self, model: str, fresh: bool) -> bool:
        if model not in self._answers:
            return False
        is_there, at = self._answers[model]
        limit = REGISTERED_FOR if is_there else timedelta(0) if fresh else UNKNOWN_FOR
        return timedelta(0) <= self._now() - at < limit

    def _ask(self, models: set[str]) -> _Question | None:
        """The question that is on its way, or a new one; None while the registry is left alone. The caller holds the lock."""
        running, now = self._question, time.monotonic()
        if running and not running.done.is_set() and now - running.begun < GIVEN_UP_AFTER_S:
            return running
        if now < self._quiet_until:
            return None
        self._question = question = _Question(frozenset(models))
        threading.Thread(target=self._put, args=(question,), name="known-models", daemon=True).start()
        return question

    def _put(self, question: _Question) -> None:
        try:
            self._read(question.models)
        except RunbookError as error:
            question.failed = True
            log.info("the registry does not say which models there are, every name is accepted: %s", error)
        except Exception:  # whatever a platform answers: the alerts must come in
            question.failed = True
            log.exception("the registry could not be asked which models there are, every name is accepted")
        ended = time.monotonic()
        with self._lock:
            self._quiet_until = ended + ASK_AGAIN_AFTER_S if question.failed and ended - question.begun > SLOW_S else 0.0
        question.done.set()

    def _read(self, models: frozenset[str]) -> None:
        try:
            listed = frozenset(self.platform.models())
        except NotFound:  # this platform keeps no list
            for model in sorted(models):
                self._note({model: self._is_there(model)})
            return
        self._note({model: model in listed for model in models}, listed)

    def _is_there(self, model: str) -> bool:
        """Two reads must agree that it is not: a model of which no version serves has no status either."""
        if not is_model_id(model):  # never asked: it would end up in a path
            return False
        for read in (self.platform.status, self.platform.versions):
            try:
                read(model)
            except NotFound:
                continue
            return True
        return False

    def _note(self, answers: Mapping[str, bool], listed: frozenset[str] | None = None) -> None:
        with self._lock:
            now = self._now()
            self._answers = {m: a for m, a in self._answers.items() if now - a[1] < REGISTERED_FOR}
            self._answers |= {model: (is_there, now) for model, is_there in answers.items()}
            if listed is not None:
                self._listed = listed


def _standing(model: str, registered: bool | None, named: Iterable[str]) -> Standing:
    """`named`: what may have been meant."""
    if registered is None:
        return Standing(Known.UNREACHABLE)
    return Standing(Known.KNOWN) if registered else Standing(Known.UNKNOWN, did_you_mean(model, named))


def refusal(model: str, hint: str) -> str:
    """What whoever reports on such a name reads."""
    return (
        f"{unknown_words(model[:100], hint)} Report under the right name, register the model, or name it under `models:` of the policy; "
        "to report it all the same: --unknown-model (over HTTP and in Prefect: unknownModel)"
    )
