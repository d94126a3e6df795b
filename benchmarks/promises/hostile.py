"""Attacks on the running product, and requests that no client of ours would send, to all three services."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI

from benchmarks.promises import attacks_content, attacks_doors, attacks_rights
from benchmarks.promises.site import Site, site
from benchmarks.promises.tally import Tally
from mlrunbook.base.edge import Limits
from mlrunbook.gateway.app import create_app
from mlrunbook.local.platform import api as platform_api
from mlrunbook.local.postgres import EmbeddedPostgres
from mlrunbook.local.serving import model_server
from tests.fakes import MODEL

Attack = Callable[[Site], bool]
ATTACKS: tuple[Attack, ...] = (*attacks_doors.ATTACKS, *attacks_rights.ATTACKS, *attacks_content.ATTACKS)
NAMES = frozenset(attack.__name__ for attack in ATTACKS)
EXAMPLES = 25  # of each operation
UNLIMITED = 10**9
OPEN = ("/", "/health", "/ready")  # everything else wants a token


def run(postgres: EmbeddedPostgres, tally: Tally, *, only: tuple[str, ...] = (), examples: int = EXAMPLES) -> None:
    begun_s = time.monotonic()
    with site(postgres) as here:
        for attack in ATTACKS:
            if only and attack.__name__ not in only:
                continue
            words = " ".join((attack.__doc__ or "").split())
            try:
                through = attack(here.fresh())
            except Exception as error:  # an attack that cannot be tried says nothing: as bad as one that worked
                through, words = True, f"could not be tried ({type(error).__name__}: {str(error)[:300]})"
            tally.add(attacks=1)
            if through:
                tally.wrong("through", f"{attack.__name__}: {words}", again=f"hostile --only {attack.__name__}")
        if not only:
            for what in fuzzed(here, tally, examples=examples):
                tally.wrong("through", what, again=f"hostile --seed {tally.seed}")
    tally.note(hostile_s=round(time.monotonic() - begun_s))


def fuzzed(here: Site, tally: Tally, *, examples: int) -> Iterator[str]:
    """Schemathesis, from each service's OpenAPI: an answer 5xx but 503, or one that does what it does without a valid token."""
    for name, app in unlimited(here).items():
        key = here.key("the lead", role="ml_team_lead")
        yield from fuzzed_service(name, app, key, tally, examples=examples)


def unlimited(here: Site) -> dict[str, FastAPI]:
    """The services, without the rates: thousands of requests come from one address."""
    none = {"requests_per_min_address": UNLIMITED, "failed_logins_per_min_address": UNLIMITED, "requests_per_min_token": UNLIMITED}
    config = here.config.model_copy(update=none)
    return {
        "gateway": create_app(here.world, limits=Limits.of(config, body_bytes=4 << 20)),
        "platform": platform_api.create_app(config, here.engine, evaluate_every_s=None),
        "model server": model_server.create_app(config, here.engine, model=MODEL),
    }


def fuzzed_service(name: str, app: FastAPI, key: dict[str, str], tally: Tally, *, examples: int) -> Iterator[str]:
    import schemathesis

    for found in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        operation = found.ok()
        try:
            _sends(operation, key, tally, examples)()
        except BaseException as error:
            said = "; ".join(str(e).replace("\n", " ")[:400] for e in getattr(error, "exceptions", [error]))
            yield f"{name} {operation.label}: {said}"


def _sends(operation: Any, key: dict[str, str], tally: Tally, examples: int) -> Callable[[], None]:
    """Requests of one operation, each with a valid token, with none and with one that nobody has."""
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import ignored_auth

    phases = (Phase.explicit, Phase.generate)
    how = settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=phases)
    strangers = () if operation.path in OPEN else ({}, {"Authorization": f"Bearer mlrb_00000000_{'x' * 43}"})

    @seed(tally.seed)
    @how
    @given(case=operation.as_strategy())
    def send(case: Any) -> None:
        answer = case.call(headers=key)
        if answer.status_code != 503:
            case.validate_response(answer, checks=[not_a_server_error, ignored_auth])
        for headers in strangers:
            code = case.call(headers=headers).status_code
            assert 400 <= code < 500 or code == 503, f"{code} without a token"
        tally.add(fuzz_requests=1 + len(strangers))

    return send
