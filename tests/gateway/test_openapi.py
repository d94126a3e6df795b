"""Whatever is sent, the gateway answers as its OpenAPI says, and never with an error of its own."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from mlrunbook.gateway.app import create_app
from mlrunbook.response.world import World
from tests.gateway.conftest import Keys

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 10  # of each operation: enough to send what no client of ours would, few enough for every run of the suite


@pytest.fixture(scope="module")
def app(world: World) -> FastAPI:
    return create_app(world)


def test_whatever_is_sent_is_answered_as_the_schema_says(app: FastAPI, keys: Keys) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    signed_in = keys.of("the lead", role="ml_team_lead")
    wrong: list[str] = []
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        asked += 1

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def send(case: Any) -> None:
            answer = case.call(headers=signed_in)
            case.validate_response(answer, checks=CHECKS)
            assert "Traceback" not in answer.text

        try:
            send()
        except BaseException as error:
            inner = [str(e) for e in getattr(error, "exceptions", [error])]
            wrong.append(f"{operation.label}: {inner}")
    assert asked > 30
    assert wrong == [], "\n".join(wrong)[:20000]
