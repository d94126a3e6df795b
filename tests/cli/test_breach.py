"""A breach from the command line: its kind, its evidence, its clocks."""

from __future__ import annotations

import hashlib
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mlrunbook.base.db import transaction
from mlrunbook.cli import bundle
from mlrunbook.domain.containment.evidence import MANIFEST, Bundle, File, manifest
from mlrunbook.domain.errors import Invalid, Refused
from mlrunbook.store import evidence, incidents, timeline
from tests.cli.conftest import Cli, one_line

FILES = (File("metrics.json", b"{}", "application/json"), File("runtime/logs/model-server.log", b"INFO\n", "text/plain"))


@pytest.fixture
def leak(cli: Cli, model: str, engine: Engine) -> str:
    """A reported leak with its evidence."""
    args = ("--severity", "high", "--type", "security", "--subtype", "data_leakage", "--description", "Names were sent to a stranger")
    incident_id = cli("report", "--model", model, *args).stdout.split()[0]
    now = datetime.now(UTC)
    listed = manifest(incident_id, Bundle(FILES), taken_at=now)
    with transaction(engine) as conn:
        incidents.get(conn, incident_id, lock=True)
        for file in (*FILES, File(MANIFEST, listed, "application/json")):
            evidence.preserve(conn, incident_id, file.name, file.content, file.media_type, now=now)
        data = {"manifest": hashlib.sha256(listed).hexdigest()}
        timeline.append(conn, incident_id, "evidence", "Evidence preserved", actor="mlrunbook", at=now, data=data)
    return incident_id


def test_one_command_writes_the_bundle_and_anybody_can_check_it_again(cli: Cli, leak: str, tmp_path: Path) -> None:
    done = cli("incidents", "evidence", leak, "--out", str(tmp_path / "bundle"))
    assert done.exit_code == 0, done.stderr
    assert "3 files" in done.stdout
    head = (tmp_path / "bundle/CHAIN_HEAD").read_text()
    assert "intact" in cli("incidents", "verify", leak, "--head", head).stdout
    assert (tmp_path / "bundle/runtime/logs/model-server.log").read_bytes() == b"INFO\n"
    checked = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "bundle", capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_without_a_folder_the_files_are_listed(cli: Cli, leak: str) -> None:
    said = cli("incidents", "evidence", leak).stdout
    assert all(f"{file.sha256}  {file.name} ({len(file.content)} bytes)" in said.splitlines() for file in FILES)


def test_evidence_that_was_changed_is_not_written_and_verify_says_which(cli: Cli, leak: str, engine: Engine, tmp_path: Path) -> None:
    assert "the evidence fits its manifest" in cli("incidents", "verify", leak).stdout
    with transaction(engine) as conn:
        changed = {"i": leak, "sha": hashlib.sha256(b"x").hexdigest()}  # by somebody who also knows of the digest beside it
        conn.execute(text("UPDATE evidence SET content = 'x', sha256 = :sha WHERE incident_id = :i AND name = 'metrics.json'"), changed)
    refused = cli("incidents", "evidence", leak, "--out", str(tmp_path / "bundle"))
    assert "metrics.json does not fit its SHA-256" in one_line(refused.stderr)
    said = one_line(cli("incidents", "verify", leak).stderr)
    assert "Evidence metrics.json was changed past mlrunbook: content was a text of SHA-256" in said


def test_clock_and_notification_are_told_in_one_sentence_and_shown(cli: Cli, leak: str) -> None:
    moved = cli("incidents", "clock", leak, "--clock", "ai_act", "--case", "death").stdout
    assert moved.startswith("EU AI Act Art. 73(4): notify the market surveillance authority by")
    shown = cli("incidents", "show", leak).stdout
    assert "Regulatory deadlines" in shown
    assert "data leakage" in shown
    over = cli("incidents", "notified", leak, "--clock", "ai_act", "--not-required", "no high-risk system").stdout
    assert "no notification needed, says the lead (ML Team Lead)" in over
    wordless = cli("incidents", "notified", leak, "--clock", "ai_act")
    assert "exactly one of them" in one_line(wordless.stderr)


def entry(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(content).hexdigest()}


def test_a_file_is_never_written_outside_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="outside"):
        bundle.write(tmp_path / "bundle", [entry("../../evil", b"x")], lambda _: b"x", head="0/0")
    assert not (tmp_path.parent / "evil").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(Invalid, match="is there already"):
        bundle.write(tmp_path, [entry("a", b"x")], lambda _: b"x", head="0/0")
