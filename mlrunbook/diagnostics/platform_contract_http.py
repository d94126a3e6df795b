"""The platform contract over HTTP: every check of `platform_contract` through the adapter, endpoint by endpoint.

Method and path are those that `HttpPlatform` sends: there is no second list of endpoints.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import httpx

from mlrunbook.adapters.model_platform import HttpPlatform
from mlrunbook.diagnostics.platform_contract import BY, CHECKS, NO_VERSION, Check, Differs, NotRun, Subject
from mlrunbook.domain.errors import NotFound, RunbookError, Transient
from mlrunbook.ports import ModelPlatform


class Verdict(StrEnum):
    CONFORMS = "conforms"
    DIFFERS = "differs"
    MISSING = "missing"  # the endpoint is not there
    NO_ANSWER = "no answer"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Result:
    """`path` has {model} for the model's name. `came` is what was seen, or why nothing was."""

    check: str
    method: str
    path: str
    verdict: Verdict
    expected: str
    came: str


class Recorder(httpx.BaseTransport):
    """Passes requests on and remembers the last one and its status. Without `through` every request is answered 501: nothing is sent."""

    def __init__(self, through: httpx.BaseTransport | None) -> None:
        self._through = through
        self.asked: list[tuple[str, str, int | None]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.method, request.url.path, None))
        answer = self._through.handle_request(request) if self._through else httpx.Response(501, request=request)
        self.asked[-1] = (request.method, request.url.path, answer.status_code)
        return answer

    def close(self) -> None:
        if self._through:
            self._through.close()


def examine(
    url: str, *, model: str, token: str | None = None, changes_allowed: bool = False, timeout_s: float = 10.0, names: Sequence[str] = ()
) -> Iterator[Result]:
    """Ask the platform at `url`, check by check (`names`: only these). Checks that change something run where `changes_allowed`."""
    subject = Subject(model, datetime.now(UTC))
    for check in CHECKS:
        if not names or check.name in names:
            yield _examine(check, subject, url, token, timeout_s, run=changes_allowed or not check.changes)


def _examine(check: Check, on: Subject, url: str, token: str | None, timeout_s: float, *, run: bool) -> Result:
    method, path = _endpoint(check, on.model)

    def result(verdict: Verdict, came: object, expected: str = check.expects) -> Result:
        return Result(check.name, method, path, verdict, expected, str(came))

    if not run:
        return result(Verdict.NOT_RUN, "it changes something: run it on a model of your choice with --allow-changes MODEL")
    recorder = Recorder(httpx.HTTPTransport())
    platform = HttpPlatform(url, token, timeout_s, transport=recorder)
    try:
        return result(Verdict.CONFORMS, check.ask(platform, on))
    except NotRun as why:
        return result(Verdict.NOT_RUN, why)
    except Differs as found:
        return result(Verdict.DIFFERS, found.came, found.expected)
    except Transient as error:
        return result(Verdict.NO_ANSWER, error)
    except NotFound as error:
        return result(Verdict.MISSING if recorder.asked[-1][2] == 404 else Verdict.DIFFERS, error)
    except RunbookError as error:
        absent = recorder.asked[-1][2] in (405, 501)
        return result(Verdict.MISSING if absent else Verdict.DIFFERS, error)
    finally:
        platform.close()


# How the adapter is made to send each check's request, with nobody listening.
_CALLS: dict[str, Callable[[ModelPlatform, str], object]] = {
    "models": lambda p, m: p.models(),
    "status": lambda p, m: p.status(m),
    "metrics": lambda p, m: p.metrics(m),
    "history": lambda p, m: p.history(m, days=1),
    "outcome_blocks": lambda p, m: p.outcome_blocks(m, since=datetime.now(UTC), until=datetime.now(UTC), block_s=3600.0),
    "alerts": lambda p, m: p.alerts(m),
    "prediction_log": lambda p, m: p.prediction_log(m),
    "changes": lambda p, m: p.changes(m, since=datetime.now(UTC)),
    "versions": lambda p, m: p.versions(m),
    "replay": lambda p, m: p.replay(m, versions=[NO_VERSION]),
    "feature_schedules": lambda p, m: p.feature_schedules(),
    "work_orders": lambda p, m: p.work_orders(m),
    "rollback": lambda p, m: p.rollback(m, target_version=NO_VERSION, reason=BY, rolled_back_by=BY, idempotency_key="-"),
    "register": lambda p, m: p.register(m, version=NO_VERSION, registered_by=BY, idempotency_key="-"),
    "stage": lambda p, m: p.stage(m, version=None, staged_by=BY, idempotency_key="-"),
    "promote": lambda p, m: p.promote(m, version=NO_VERSION, reason=BY, promoted_by=BY, idempotency_key="-"),
    "resume_feature_schedules": lambda p, m: p.resume_feature_schedules(["-"], resumed_by=BY, idempotency_key="-"),
    "flag_pending_work_orders": lambda p, m: p.flag_pending_work_orders(m, reason=BY, idempotency_key="-"),
}


def _endpoint(check: Check, model: str) -> tuple[str, str]:
    """Method and path that the adapter sends for this check."""
    silent = Recorder(None)
    with contextlib.suppress(RunbookError):
        _CALLS[check.name](HttpPlatform("http://nobody", transport=silent), model)
    method, path, _ = silent.asked[-1]
    return method, path.replace(f"/{model}", "/{model}")
