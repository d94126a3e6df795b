"""`mlrunbook webhook explain` without anything running, and beside a real gateway that reads the same message."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from mlrunbook.cli.main import app
from mlrunbook.cli.webhook import AnyFormat, FormatName
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.webhooks import samples
from mlrunbook.gateway.webhooks.mail import Mailbox
from mlrunbook.gateway.webhooks.registry import FORMATS
from tests.cli.conftest import Cli, now, one_line
from tests.fakes import FileWorld, world_of

PAYLOADS = Path(__file__).parents[1] / "gateway" / "payloads"
POLICY = """
models:
  "pump_failure_*": {owner: the tests}
intake:
  models:
    "title:*on the pumps*": pumps
  levels:
    critical: [p1, page, bad]
  states:
    ignored: [suppressed]
alert_types:
  "*drift*": compliance
"""
Explain = Callable[..., Result]


@pytest.fixture
def explain(tmp_path: Path) -> Explain:
    """With a policy, and with no gateway, no store and no registry."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    env = {key: None for key in os.environ if key.startswith(("MLRUNBOOK_", "PREFECT_"))}

    def run(message: Any, form: str, *args: str, **more: str) -> Result:
        given = message if isinstance(message, bytes) else json.dumps(message).encode()
        ours = {"MLRUNBOOK_POLICY": str(policy), "MLRUNBOOK_DATA_DIR": str(tmp_path), "COLUMNS": "80"}
        return CliRunner().invoke(app, ["webhook", "explain", "-", "--format", form, *args], input=given, env={**env, **ours, **more})

    return run


def parts(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(result.stdout)["parts"]
    return found


def grafana(*alerts: dict[str, Any]) -> dict[str, Any]:
    common = {"status": "firing", "startsAt": "2026-03-02T09:00:00Z"}
    return {"version": "1", "alerts": [common | one for one in alerts]}


def labelled(**labels: str) -> dict[str, Any]:
    return {"labels": labels}


def test_every_format_can_be_explained() -> None:
    assert {str(one) for one in AnyFormat} == {*FORMATS, "pagerduty-events", "email", "mail"}


def test_it_names_the_line_of_policy_that_decided_each_step(explain: Explain) -> None:
    done = explain(grafana(labelled(alertname="Covariate drift", title="x on the pumps", priority="P1")), "grafana", "--json")
    assert done.exit_code == 0
    (one,) = parts(done)
    assert one["outcome"] == "open"
    assert {step: said["value"] for step, said in one["read"].items() if step != "identity"} == {
        "model": "pumps",
        "type": "compliance",
        "level": "critical",
        "state": "firing",
    }
    for step, line in {"model": "'title:*on the pumps*'", "type": "*drift*", "level": "intake.levels.critical"}.items():
        assert line in one["read"][step]["because"]


def test_each_part_of_a_list_has_its_own_outcome(explain: Explain) -> None:
    done = explain(
        grafana(
            labelled(alertname="ModelF1Drop", model="pump_failure_1"),
            labelled(alertname="ModelF1Drop", model="pump_failure_1") | {"status": "resolved"},
            labelled(alertname="DiskFull"),
        ),
        "grafana",
        "--json",
    )
    assert [one["outcome"] for one in parts(done)] == ["open", "end", "quarantine"]
    assert done.exit_code == 1, "a part of it would wait in the quarantine"


@pytest.mark.parametrize(
    ("form", "message", "outcome"),
    [
        ("cloudevents", {"specversion": "1.0", "id": "1", "source": "/a", "type": "com.example.model.created"}, "pass over"),
        ("cloudevents", {"specversion": "1.0", "id": "1", "source": "/a", "type": "x.deployed", "data": {"model": "pumps"}}, "change"),
        ("generic", {"model": "pumps", "kind": "ModelF1Drop", "status": "suppressed"}, "pass over"),
        ("mlflow", {"entity": "prompt", "action": "created", "data": {"name": "pumps"}}, "pass over"),
        ("mlflow", {"entity": "model_version", "action": "created", "data": {"name": "pumps", "version": "3"}}, "change"),
        ("pagerduty", {"event": {"id": "1", "event_type": "pagey.ping", "data": {"id": "P1"}}}, "pass over"),
        ("opsgenie", {"action": "AddNote", "alert": {"alertId": "1", "note": "look"}}, "note"),
    ],
)
def test_what_opens_nothing_says_what_happens_instead(explain: Explain, form: str, message: dict[str, Any], outcome: str) -> None:
    done = explain(message, form, "--json")
    assert outcome in [one["outcome"] for one in parts(done)]
    assert "open" not in [one["outcome"] for one in parts(done)]
    assert done.exit_code == 0


def test_a_binary_event_is_read_with_its_headers(explain: Explain) -> None:
    attributes = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/a", "ce-type": "com.example.drift.detected"}
    headers = [arg for name, value in attributes.items() for arg in ("-H", f"{name}: {value}")]
    (one,) = parts(explain({"model": "pumps"}, "cloudevents", *headers, "--json"))
    assert (one["outcome"], one["read"]["type"]["value"]) == ("open", "compliance")


def test_a_mail_is_read_from_its_header_on(explain: Explain) -> None:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = "[RESOLVED] ModelF1Drop", "a@example.com", "b@example.com"
    mail.set_content("Model: pump_failure_1\nPriority: P1\n")
    (one,) = parts(explain(mail.as_bytes(), "mail", "--json"))
    assert (one["outcome"], one["read"]["model"]["value"], one["read"]["level"]["value"]) == ("end", "pump_failure_1", "critical")


def test_it_asks_the_registry_where_one_is_set_and_says_where_none_was_asked(
    explain: Explain, platform: tuple[str, str], token: Callable[..., str]
) -> None:
    url, registered = platform
    env = {"MLRUNBOOK_PLATFORM_URL": url, "MLRUNBOOK_PLATFORM_TOKEN": token("who explains")}
    disk, ours = (grafana(labelled(alertname="Full", model=name)) for name in ("ssd970", registered))
    asked = [explain(message, "grafana", "--json", **env) for message in (disk, ours)]
    assert [parts(done)[0]["outcome"] for done in asked] == ["quarantine", "open"]
    assert [json.loads(done.stdout)["notes"] for done in asked] == [[], []]
    alone = explain(disk, "grafana", "--json")
    assert parts(alone)[0]["outcome"] == "open"
    assert "ssd970" in json.loads(alone.stdout)["notes"][0]


@pytest.mark.parametrize("form", sorted({*FORMATS, "mail"}))
@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"[]", b"{}", b"nonsense", b"[" * 100_000, b"null", b'"\\ud800"', b"1e999"])
def test_what_is_no_message_gets_the_sentence_of_the_quarantine_and_exit_code_1(explain: Explain, form: str, content: bytes) -> None:
    done = explain(content, form)
    assert not (done.exception and not isinstance(done.exception, SystemExit)), done.exception
    assert "Traceback" not in done.output
    if content not in (b"[]",) and form != "mail":
        assert done.exit_code == 1
        assert "It waits in the quarantine" in done.stdout


@pytest.mark.parametrize("file", sorted(PAYLOADS.glob("*.json")), ids=lambda path: path.stem)
def test_every_sample_of_a_sender_says_what_it_does(explain: Explain, file: Path) -> None:
    form = file.stem.partition("_")[0]
    if form in FORMATS:
        found = parts(explain(file.read_bytes(), form, "--json"))
        assert found
        assert all(one["happens"] for one in found)
        assert all(said["because"] for one in found for said in one["read"].values())


def test_a_file_that_is_not_there_is_one_line(cli: Cli) -> None:
    done = cli("webhook", "explain", "/nowhere/at-all.json", "--format", "grafana")
    assert "/nowhere/at-all.json" in one_line(done.stderr)
    assert done.exit_code == 1


def test_the_page_fits_80_columns_and_obeys_nothing(explain: Explain) -> None:
    hostile = "\x1b[31mred\u202e [bold]x[/bold] " + "long " * 200
    shown = explain(grafana(labelled(alertname=hostile, model="pump_failure_1", severity=hostile), labelled(x=hostile)), "grafana").stdout
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert not {"\x1b", "\u202e"} & set(shown)
    assert "[bold]" in shown


@pytest.mark.parametrize("form", sorted(set(FormatName) - {FormatName.MLFLOW}))
def test_it_says_what_the_gateway_stores_word_for_word(cli: Cli, explain: Explain, model: str, form: str) -> None:
    message = samples.sample(form, model, now=now(), firing=True)
    (told,) = parts(explain(message, form, "--json"))
    headers = {"Authorization": f"Bearer {cli.env['MLRUNBOOK_GATEWAY_TOKEN']}", "Content-Type": samples.content_type(form)}
    receipt = httpx.post(f"{cli.env['MLRUNBOOK_GATEWAY_URL']}/webhooks/{form}", content=json.dumps(message), headers=headers).json()
    shown = json.loads(cli("incidents", "show", receipt["incidents"][0], "--messages", "--json").stdout)
    assert shown["messages"][0]["read"] == {step: said["because"] for step, said in told["read"].items()}


def test_show_has_the_messages_as_they_came(cli: Cli, model: str) -> None:
    done = cli("webhook", "test", "--format", "grafana", "--firing", "--model", model)
    assert "for real" in done.stdout
    incident_id = done.stdout.rpartition("incidents: ")[2].strip()
    shown = cli("incidents", "show", incident_id, "--messages", COLUMNS="80").stdout
    assert "As it came" in shown
    assert samples.SUMMARY in " ".join(shown.split())
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert "As it came" not in cli("incidents", "show", incident_id).stdout


@pytest.mark.parametrize("form", [*FormatName, "pagerduty-events"])
def test_a_test_says_that_it_opened_nothing(cli: Cli, form: str, model: str) -> None:
    done = cli("webhook", "test", "--format", form, "--model", model)
    assert "test: nothing was opened" in done.stdout
    assert json.loads(cli("incidents", "list", "--model", model, "--json").stdout) == []


@pytest.fixture
def mailbox(engine: Engine, scratch: Path) -> Iterator[int]:
    """The port of the mailbox of a gateway."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    ours = Policy(models={"pump_failure_*": ModelRules(owner="the tests")})
    taking = Mailbox(world_of(engine, FileWorld(scratch / f"mail-{port}.json", now), now, policy=ours), "127.0.0.1", port)
    taking.start()
    yield port
    taking.stop()


def test_a_mail_of_a_test_opens_nothing_and_says_what_it_would(cli: Cli, model: str, mailbox: int) -> None:
    done = cli("webhook", "test", "--format", "mail", "--model", model, MLRUNBOOK_SMTP_PORT=str(mailbox))
    assert "test, nothing is stored: end: it ends" in one_paragraph(done.stdout)
    assert json.loads(cli("incidents", "list", "--model", model, "--json").stdout) == []
    real = cli("webhook", "test", "--format", "mail", "--model", model, "--firing", MLRUNBOOK_SMTP_PORT=str(mailbox))
    assert "for real" in real.stdout
    assert json.loads(cli("incidents", "list", "--model", model, "--json").stdout)


@pytest.mark.parametrize("form", ["generic", "mail", "pagerduty-events", "grafana"])
def test_a_message_of_one_s_own_is_tested_too(cli: Cli, tmp_path: Path, model: str, mailbox: int, form: str) -> None:
    event = {"event_action": "trigger", "payload": {"summary": "s", "source": "x", "severity": "error", "custom_details": {"model": model}}}
    own = {
        "generic": json.dumps({"kind": "ModelF1Drop", "model": model}),
        "mail": f"Subject: [FIRING] ModelF1Drop\n\nModel: {model}\n",
        "pagerduty-events": json.dumps(event),
        "grafana": json.dumps(grafana(labelled(alertname="ModelF1Drop", model=model))),
    }
    file = tmp_path / "message"
    file.write_text(own[form])
    done = cli("webhook", "test", str(file), "--format", form, MLRUNBOOK_SMTP_PORT=str(mailbox))
    assert f"opens an incident on {model}" in one_paragraph(done.stdout)
    assert json.loads(cli("incidents", "list", "--model", model, "--json").stdout) == []


@pytest.mark.parametrize(
    ("args", "todo"),
    [
        (("--format", "mail"), "MLRUNBOOK_SMTP_PORT"),
        (("--format", "generic", "--mapping", "watch"), "FILE"),
        (("--format", "grafana", "--mapping", "watch"), "--format generic"),
        (("/nowhere/at-all.json", "--format", "grafana"), "/nowhere/at-all.json"),
    ],
)
def test_what_a_test_lacks_is_one_line(cli: Cli, args: tuple[str, ...], todo: str) -> None:
    assert todo in one_line(cli("webhook", "test", *args).stderr)


def test_a_mail_is_tested_over_no_network(cli: Cli) -> None:
    done = cli("webhook", "test", "--format", "mail", MLRUNBOOK_SMTP_PORT="25", MLRUNBOOK_SMTP_HOST="mx.example.com")
    assert "plain text" in one_line(done.stderr)


def test_a_mapping_that_policy_lacks_is_named_with_those_it_has(explain: Explain) -> None:
    done = explain({"model": "pumps"}, "generic", "--mapping", "wacth")
    assert done.exit_code == 1
    assert "default" in one_line(done.stderr)


def one_paragraph(shown: str) -> str:
    return " ".join(shown.split())
