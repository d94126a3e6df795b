"""The contract of `ports.ModelPlatform`, as checks that any platform can be asked: a team's own, the one in the box, a test's fake.

A check is named after the port's method. It raises `Differs` with what was expected and what came, `NotRun` when it cannot say, and
otherwise returns what it saw. Checks that change something run only for a model somebody named for it; they put back what served and
what was staged. `platform_contract_http` runs them over HTTP.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from mlrunbook.domain.errors import NotFound, Refused, RunbookError
from mlrunbook.domain.evaluation.performance import Rewritten, WindowMetrics
from mlrunbook.domain.observed import Change, Prediction, ViewSchedule
from mlrunbook.domain.plural import counted
from mlrunbook.ports import ModelPlatform

NOBODY = "mlrunbook-contract-no-such-model"
NO_MODEL = "a change of a model that is not there"
NO_VERSION = "v0.0.0-mlrunbook-contract"
ROWS = 20
DAYS = 14
KINDS = {"deployment", "rollback", "config", "infrastructure", "feature_store", "data_pipeline", "staging"}
STATES = {"pending", "scheduled", "done", "cancelled"}
A_MOMENT = timedelta(seconds=2)  # platforms may keep whole seconds
BY = "mlrunbook platform-contract"


class Differs(Exception):
    """The platform answered, and not as the contract says."""

    def __init__(self, expected: str, came: object) -> None:
        super().__init__(f"expected {expected}; came {came}")
        self.expected, self.came = expected, str(came)


class NotRun(Exception):
    """There is nothing to judge by: no row, no second version, a part that this platform does not have."""


@dataclass(frozen=True)
class Subject:
    """What is asked about. `run` makes the idempotency keys of one run unlike those of any other."""

    model: str
    now: datetime
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    def key(self, of: str) -> str:
        return f"contract-{self.run}-{of}"


@dataclass(frozen=True)
class Check:
    """`expects` in one line; `ask` raises Differs or NotRun, or says what it saw."""

    name: str
    expects: str
    ask: Callable[[ModelPlatform, Subject], str]
    changes: bool = False


def expect(holds: bool, expected: str, came: object) -> None:
    if not holds:
        raise Differs(expected, came)


# --- reads ----------------------------------------------------------------------------------------------------------------------


def _models(platform: ModelPlatform, on: Subject) -> str:
    try:
        found = platform.models()
    except NotFound as error:
        raise NotRun(f"the platform lists no models ({error}): a model is looked up by its status") from error
    if on.model not in found:
        platform.status(on.model)  # NotFound: nobody has registered it, and the list is right
        raise Differs(f"{on.model} among them", list(found)[:ROWS])
    expect(NOBODY not in found, "no model that is not there", NOBODY)
    return counted(len(found), "model")


def _status(platform: ModelPlatform, on: Subject) -> str:
    seen = platform.status(on.model)
    expect(seen.model == on.model, f"model {on.model!r}", repr(seen.model))
    expect(seen.deployed_at is None or seen.deployed_at <= on.now + timedelta(hours=1), "deployedAt in the past", seen.deployed_at)
    _unknown_is_not_found(lambda: platform.status(NOBODY), "a model that is not there")
    health = "healthy" if seen.server_healthy else "not healthy"
    return f"{seen.serving_version} serves, the server is {health}"


def _metrics(platform: ModelPlatform, on: Subject) -> str:
    seen = platform.metrics(on.model)
    for name, window in (("current", seen.current), ("baseline", seen.baseline)):
        _window(name, window)
    if seen.rewritten_lately:
        _rewritten("rewrittenLately", seen.rewritten_lately)
    span = seen.current.until - seen.current.since
    expect(abs(span - timedelta(hours=1)) <= timedelta(minutes=1), "current to be the last 60 minutes", f"{span} of them")
    since, until = on.now - timedelta(hours=3), on.now - timedelta(hours=2)
    asked = platform.metrics(on.model, since=since, until=until).current
    expect(abs(asked.since - since) <= A_MOMENT and abs(asked.until - until) <= A_MOMENT, f"{since} to {until} when that is asked for",
           f"{asked.since} to {asked.until}")  # fmt: skip
    for version in seen.current.versions[:1]:
        only = platform.metrics(on.model, version=version).current.versions
        expect(set(only) <= {version}, f"only {version} when that is asked for", only)
    _unknown_is_not_found(lambda: platform.metrics(NOBODY), "a model that is not there")
    return f"{seen.current.predictions} predictions in the last hour, {seen.current.labelled} with an outcome"


def _window(name: str, window: WindowMetrics) -> None:
    expect(window.since < window.until, f"{name}.since before {name}.until", f"{window.since} and {window.until}")
    cells = window.tally.n
    expect(cells == window.labelled, f"{name}.labelled to be the sum of its confusionMatrix ({cells})", window.labelled)
    expect(
        window.labelled <= window.predictions, f"{name}.labelled at most {name}.predictions", f"{window.labelled} of {window.predictions}"
    )
    for share in ("flagged_share", "error_rate", "null_rate"):
        value = getattr(window, share)
        expect(value is None or 0 <= value <= 1, f"{name}.{_camel(share)} from 0 to 1", value)
    blocks = sum(block.n for block in window.blocks)
    expect(not window.blocks or blocks == cells, f"{name}.blocks to add up to its confusionMatrix ({cells})", blocks)
    if window.rewritten:
        _rewritten(f"{name}.rewritten", window.rewritten)


def _rewritten(name: str, seen: Rewritten) -> None:
    by = sum(seen.by.values())
    expect(by == seen.count <= seen.of, f"{name}.by to add up to count, at most of", f"{by}, {seen.count} and {seen.of}")
    counts = {seen.first.n, seen.now.n}
    expect(counts == {seen.of}, f"{name}.firstReported and current to count the same {seen.of} predictions", sorted(counts))


def _history(platform: ModelPlatform, on: Subject) -> str:
    try:
        found = platform.history(on.model, days=DAYS)
    except NotFound as error:
        raise NotRun(f"the platform keeps no history by day ({error}): audits draw none") from error
    _ordered([day.day for day in found], "oldest first")
    today = on.now.date()
    outside = [day.day for day in found if not today - timedelta(days=DAYS) <= day.day <= today + timedelta(days=1)]
    expect(not outside, f"the last {DAYS} days when that many are asked for", outside)
    for day in found:
        expect(day.confusion.n <= day.predictions, f"labelled at most predictions on {day.day}", f"{day.confusion.n} of {day.predictions}")
        for share in ("flagged_share", "error_rate", "null_rate"):
            value = getattr(day, share)
            expect(value is None or 0 <= value <= 1, f"{_camel(share)} from 0 to 1 on {day.day}", value)
    earlier = platform.history(on.model, days=1, until=on.now - timedelta(days=2))
    expect(len(earlier) <= 1, "at most one day for days=1", [day.day for day in earlier])
    return f"{len(found)} of the last {DAYS} days"


def _outcome_blocks(platform: ModelPlatform, on: Subject) -> str:
    block_s, since = 3600.0, on.now - timedelta(hours=24)
    try:
        found = platform.outcome_blocks(on.model, since=since, until=on.now - timedelta(minutes=1), block_s=block_s)
    except NotFound as error:
        raise NotRun(f"the platform keeps no outcome blocks ({error}): evidence does not add up over looks") from error
    expect(abs(found.since - since) < timedelta(seconds=1), f"since as it was asked for, {since.isoformat()}", found.since)
    expect(found.block_s == block_s, f"blockS as it was asked for, {block_s:g}", found.block_s)
    expect(len(found.blocks) == 23, "the 23 whole hours of 23 h 59 min", len(found.blocks))
    known, by_asset = sum(block.n for block in found.blocks), sum(asset.n for asset in found.by_asset)
    expect(not found.by_asset or by_asset == known, f"byAsset to count the same {known} outcomes as the blocks", by_asset)
    return f"{known} outcomes in {len(found.blocks)} blocks, {len(found.by_asset)} assets"


def _alerts(platform: ModelPlatform, on: Subject) -> str:
    found = platform.alerts(on.model)
    for one in found:
        labels = one.get("labels")
        name = labels.get("alertname") if isinstance(labels, dict) else None
        expect(bool(name), "labels.alertname on every alert, as Alertmanager writes one", one)
    return f"{len(found)} active alerts"


def _prediction_log(platform: ModelPlatform, on: Subject) -> str:
    rows = _logged(platform, on)
    expect(len(rows) <= ROWS, f"at most {ROWS} rows for limit={ROWS}", len(rows))
    _ordered([row.at for row in rows], "newest first", reverse=True)
    for row in rows:
        expect(0 <= row.score <= 1, "a score from 0 to 1", row.score)
        expect(row.label == (row.score >= row.threshold), "label true where score reaches threshold", _shown(row))
    oldest, newest = rows[-1].at, rows[0].at
    between = platform.prediction_log(on.model, limit=ROWS, since=oldest, until=newest)
    outside = [row for row in between if not oldest - A_MOMENT <= row.at <= newest + A_MOMENT]
    expect(not outside, f"rows from {oldest} to {newest} when that is asked for", [_shown(row) for row in outside])
    labelled = platform.prediction_log(on.model, limit=ROWS, labelled_only=True)
    expect(all(row.outcome is not None for row in labelled), "an outcome on every row for labelledOnly=true", [_shown(r) for r in labelled])
    return f"{counted(len(rows), 'row')}, {len(labelled)} with an outcome"


def _changes(platform: ModelPlatform, on: Subject) -> str:
    found = platform.changes(on.model, since=on.now - timedelta(days=365))
    _ordered([change.at for change in found], "newest first", reverse=True)
    for change in found:
        expect(change.kind in KINDS, f"one of {', '.join(sorted(KINDS))}", change.kind)
    if found:
        later = platform.changes(on.model, since=found[0].at + timedelta(hours=1))
        expect(found[0] not in later, f"none from before `since` ({found[0].at + timedelta(hours=1)})", found[0])
    _unknown_is_not_found(lambda: platform.changes(NOBODY, since=on.now), "a model that is not there")
    return f"{counted(len(found), 'change')} in a year"


def _versions(platform: ModelPlatform, on: Subject) -> str:
    found = platform.versions(on.model)
    _ordered([version.registered_at for version in found], "oldest first")
    names = [version.version for version in found]
    serving = platform.status(on.model).serving_version
    expect(serving in names, f"the serving version {serving} among them", names)
    for version in found:
        if version.trained_from and version.trained_to:
            expect(version.trained_from <= version.trained_to, f"trainedFrom before trainedTo of {version.version}", version.trained_to)
    _unknown_is_not_found(lambda: platform.versions(NOBODY), "a model that is not there")
    return f"{len(found)} versions: {', '.join(names)}"


def _replay(platform: ModelPlatform, on: Subject) -> str:
    serving = platform.status(on.model).serving_version
    found = platform.replay(on.model, versions=[serving, NO_VERSION], limit=ROWS)
    expect(len(found.rows) <= ROWS, f"at most {ROWS} rows for limit={ROWS}", len(found.rows))
    expect(all(row.outcome is not None for row in found.rows), "only rows whose outcome is known", [_shown(r) for r in found.rows])
    _ordered([row.at for row in found.rows], "oldest first")
    expect([v.version for v in found.versions] == [serving, NO_VERSION], "one entry for each asked version, in that order",
           [v.version for v in found.versions])  # fmt: skip
    asked, unknown = found.versions
    expect(bool(unknown.problem) and not unknown.scores, "a `problem` and no scores for a version that is not there", unknown)
    expect(all(0 <= score <= 1 for score in asked.scores), "scores from 0 to 1", asked.scores)
    return f"{counted(len(found.rows), 'row')} scored by {serving}" + (f": {asked.problem}" if asked.problem else "")


def _feature_schedules(platform: ModelPlatform, on: Subject) -> str:
    found = _schedules(platform)
    return f"{len(found)} views, {sum(s.suspended for s in found)} suspended"


def _work_orders(platform: ModelPlatform, on: Subject) -> str:
    found = platform.work_orders(on.model)
    for order in found:
        expect(order.state in STATES, f"one of {', '.join(sorted(STATES))}", order.state)
    pending = platform.work_orders(on.model, state="pending")
    expect(all(order.state == "pending" for order in pending), "only pending ones for state=pending", {o.state for o in pending})
    _unknown_is_not_found(lambda: platform.work_orders(NOBODY), "a model that is not there")
    return f"{len(found)} work orders, {len(pending)} pending"


# --- changes --------------------------------------------------------------------------------------------------------------------


def _rollback(platform: ModelPlatform, on: Subject) -> str:
    def to(version: str, key: str, model: str = on.model) -> str:
        done = platform.rollback(model, target_version=version, reason=BY, rolled_back_by=BY, idempotency_key=on.key(key))
        return done.serving_version

    return _served_twice(platform, on, to, "rollback")


def _promote(platform: ModelPlatform, on: Subject) -> str:
    def to(version: str, key: str, model: str = on.model) -> str:
        return platform.promote(model, version=version, reason=BY, promoted_by=BY, idempotency_key=on.key(key)).serving_version

    return _served_twice(platform, on, to, "promote")


def _served_twice(platform: ModelPlatform, on: Subject, to: Callable[..., str], verb: str) -> str:
    """Make another version serve, with the same key twice: it is done once, read back, and listed once among the changes."""
    serving, target = platform.status(on.model).serving_version, _another(platform, on)
    before = _listed(platform, on)
    with _put_back(platform, on, serving):
        _unknown_is_not_found(lambda: to(target, f"{verb}-nobody", NOBODY), NO_MODEL)
        _unknown_is_not_found(lambda: to(NO_VERSION, f"{verb}-nothing"), "a version that is not there")
        expect(to(target, verb) == target, f"servingVersion {target} in the answer", "another")
        made = [change for change in _listed(platform, on) if change not in before]
        expect([change.ref for change in made] == [target], f"one more change, to {target}", made)
        expect(to(target, verb) == target, f"the same answer to the same Idempotency-Key ({target})", "another")
        again = [change for change in _listed(platform, on) if change not in before]
        expect(again == made, "nothing more changed by the same Idempotency-Key", again)
        now = platform.status(on.model).serving_version
        expect(now == target, f"status to say that {target} serves", now)
    return f"{serving} to {target} and back"


def _register(platform: ModelPlatform, on: Subject) -> str:
    serving, before = platform.status(on.model).serving_version, platform.versions(on.model)
    for key in ("register", "register", "register-again"):
        entered = platform.register(on.model, version=serving, registered_by=BY, idempotency_key=on.key(key))
        expect(entered.version == serving, f"version {serving}", entered.version)
    after = [version.version for version in platform.versions(on.model)]
    expect(after == [version.version for version in before], "no second entry of a registered version", after)
    _unknown_is_not_found(
        lambda: platform.register(on.model, version=NO_VERSION, registered_by=BY, idempotency_key=on.key("register-nothing")),
        "a version that nobody trained",
    )
    _unknown_is_not_found(
        lambda: platform.register(NOBODY, version=serving, registered_by=BY, idempotency_key=on.key("register-nobody")), NO_MODEL
    )
    return f"{serving} entered again changes nothing"


def _stage(platform: ModelPlatform, on: Subject) -> str:
    def to(version: str | None, key: str, model: str = on.model) -> str | None:
        return platform.stage(model, version=version, staged_by=BY, idempotency_key=on.key(key)).staging_version

    staged, target = platform.status(on.model).staging_version, _another(platform, on)
    try:
        _unknown_is_not_found(lambda: to(target, "stage-nobody", NOBODY), NO_MODEL)
        _unknown_is_not_found(lambda: to(NO_VERSION, "stage-nothing"), "a version that is not there")
        for _ in range(2):
            came = to(target, "stage")
            expect(came == target, f"stagingVersion {target}", came)
        came = to(None, "unstage")
        expect(came is None, "stagingVersion null after version null", came)
    finally:
        to(staged, "stage-back")
    return f"{target} staged and taken out"


def _resume_feature_schedules(platform: ModelPlatform, on: Subject) -> str:
    """Only those that run: a schedule that somebody suspended stays so."""
    before = _schedules(platform)
    running = [schedule.view for schedule in before if not schedule.suspended]
    if not running:
        raise NotRun("every view is suspended: resuming them would change what somebody decided")
    for _ in range(2):
        after = platform.resume_feature_schedules(running, resumed_by=BY, idempotency_key=on.key("resume"))
        came = {schedule.view: schedule.suspended for schedule in after}
        expect(came == {schedule.view: schedule.suspended for schedule in before}, "every schedule as it was", came)
    return f"{len(running)} running schedules resumed, which changes nothing"


def _flag_pending_work_orders(platform: ModelPlatform, on: Subject) -> str:
    for _ in range(2):
        found = platform.flag_pending_work_orders(on.model, reason=BY, idempotency_key=on.key("flag"))
        left = [order.id for order in found if order.state == "pending" and not order.flagged_for_review]
        expect(not left, "every pending order flagged in the answer", f"{left} not flagged")
    _unknown_is_not_found(lambda: platform.flag_pending_work_orders(NOBODY, reason=BY, idempotency_key=on.key("flag-nobody")), NO_MODEL)
    left = [order.id for order in platform.work_orders(on.model, state="pending") if not order.flagged_for_review]
    expect(not left, "every pending order flagged when read back", f"{left} not flagged")
    return f"{len(found)} orders flagged for review"


CHECKS: tuple[Check, ...] = (
    Check("status", "what serves, and 404 for a model that is not there", _status),
    Check("models", "every registered model, or 404 where the platform keeps no list", _models),
    Check("metrics", "two windows whose figures agree; since, until and version respected", _metrics),
    Check("history", "figures by day, oldest first; days and until respected; 404 where none are kept", _history),
    Check("outcome_blocks", "known outcomes by whole block of time, and by asset; 404 where none are kept", _outcome_blocks),
    Check("alerts", "alerts as Alertmanager writes one", _alerts),
    Check("prediction_log", "rows newest first; limit, since, until and labelledOnly respected", _prediction_log),
    Check("changes", "changes newest first, of a known kind; since respected", _changes),
    Check("versions", "every version, oldest first, the serving one among them", _versions),
    Check("replay", "one score a row, oldest first; a problem where a version cannot score", _replay),
    Check("feature_schedules", "the views' schedules, or 404 where the platform does not run them", _feature_schedules),
    Check("work_orders", "the work orders; state respected", _work_orders),
    Check("rollback", "the target serves, once for the same key; 404 for a version that is not there", _rollback, changes=True),
    Check("register", "a registered version again changes nothing; 404 for one nobody trained", _register, changes=True),
    Check("stage", "the version stands in staging, null empties it", _stage, changes=True),
    Check("promote", "the version serves, once for the same key; 404 for a version that is not there", _promote, changes=True),
    Check("resume_feature_schedules", "running schedules go on running", _resume_feature_schedules, changes=True),
    Check("flag_pending_work_orders", "every pending order is flagged; again changes nothing", _flag_pending_work_orders, changes=True),
)


# --- helpers --------------------------------------------------------------------------------------------------------------------


def _unknown_is_not_found(ask: Callable[[], object], what: str) -> None:
    try:
        came = ask()
    except NotFound:
        return
    except Refused as error:
        raise Differs(f"404 for {what}", error) from error
    raise Differs(f"404 for {what}", came)


def _logged(platform: ModelPlatform, on: Subject) -> Sequence[Prediction]:
    rows = platform.prediction_log(on.model, limit=ROWS)
    if not rows:
        raise NotRun(f"no prediction of {on.model} is logged: order, limits and outcomes cannot be judged")
    return rows


def _schedules(platform: ModelPlatform) -> Sequence[ViewSchedule]:
    try:
        return platform.feature_schedules()
    except NotFound as error:
        raise NotRun(f"the platform runs no materialisation ({error}): resuming it is a person's work") from error


def _another(platform: ModelPlatform, on: Subject) -> str:
    """A registered version that does not serve; the one before where there is one."""
    status = platform.status(on.model)
    names = [version.version for version in platform.versions(on.model) if version.version != status.serving_version]
    if not names:
        raise NotRun(f"{on.model} has no second version")
    return status.previous_version if status.previous_version in names else names[-1]


def _listed(platform: ModelPlatform, on: Subject) -> list[Change]:
    return [c for c in platform.changes(on.model, since=on.now - timedelta(days=7)) if c.kind in ("deployment", "rollback")]


@contextmanager
def _put_back(platform: ModelPlatform, on: Subject, version: str) -> Iterator[None]:
    """Whatever happens, `version` serves again afterwards, by the way that works."""
    try:
        yield
    finally:
        who, key = {"reason": f"{BY}: back to what served"}, on.key("back")
        try:
            platform.rollback(on.model, target_version=version, rolled_back_by=BY, idempotency_key=f"{key}-{secrets.token_hex(2)}", **who)
        except RunbookError:
            platform.promote(on.model, version=version, promoted_by=BY, idempotency_key=f"{key}-{secrets.token_hex(2)}", **who)


def _ordered(times: Sequence[datetime] | Sequence[date], how: str, *, reverse: bool = False) -> None:
    expect(list(times) == sorted(times, reverse=reverse), how, "another order")


def _shown(row: Prediction) -> str:
    return f"{row.id} at {row.at:%Y-%m-%d %H:%M:%S}, score {row.score}, threshold {row.threshold}, outcome {row.outcome}"


def _camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)
