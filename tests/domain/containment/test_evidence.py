"""The manifest of a bundle, and the secrets that never enter it."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime

import pytest

from mlrunbook.domain.blackout import BLACKED_OUT, without_secrets
from mlrunbook.domain.containment.evidence import Bundle, File, faults, manifest

T0 = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
BUNDLE = Bundle((File("b.log", b"two", "text/plain"), File("a.json", b"{}", "application/json", 1)), {"runtime": "nothing answers"})
LISTED = manifest("incident_1", BUNDLE, taken_at=T0)
DIGEST = hashlib.sha256(LISTED).hexdigest()
KEPT = {f.name: f.sha256 for f in BUNDLE.files}


def test_every_file_is_named_with_size_and_digest_and_what_is_missing_with_its_reason() -> None:
    body = json.loads(LISTED)
    assert [(f["name"], f["bytes"], f["secretsRemoved"]) for f in body["files"]] == [("a.json", 2, 1), ("b.log", 3, 0)]
    assert body["files"][1]["sha256"] == hashlib.sha256(b"two").hexdigest()
    assert body["missing"] == [{"name": "runtime", "why": "nothing answers"}]


def test_a_bundle_as_it_was_kept_has_no_faults_and_what_came_later_is_none() -> None:
    assert faults(LISTED, KEPT | {"drift-report.html": "0" * 64}, digest=DIGEST) == []


def test_a_changed_file_a_lost_one_and_another_manifest_are_found() -> None:
    assert faults(LISTED, KEPT | {"b.log": "0" * 64}, digest=DIGEST) == ["b.log was changed"]
    assert faults(LISTED, {"a.json": KEPT["a.json"]}, digest=DIGEST) == ["b.log is gone"]
    assert faults(LISTED.replace(b"two", b"one") + b" ", KEPT, digest=DIGEST) == [
        "manifest.json is not the one whose SHA-256 is on the timeline"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "token mlrb_0a1b2c3d_SECRETSECRETSECRETSECRET used",
        "Authorization: Bearer SECRET.SECRET-SECRET",
        "connect to postgresql://worker:SECRET@db:5432/x failed",
        '{"api_key": "SECRET", "rows": 3}',
        "{'db_password': 'SECRET'}",
        '{"env": "{\\"CLIENT_SECRET\\": \\"SECRETX\\"}"}',
        "https://example.com/?token=SECRETSECRET&page=2",
        "-----BEGIN RSA PRIVATE KEY-----\nSECRET\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_what_looks_like_a_secret_is_blacked_out_and_counted(text: str) -> None:
    content, removed = without_secrets(text.encode())
    assert b"SECRET" not in content.replace(b"CLIENT_SECRET", b"")
    assert BLACKED_OUT.encode() in content
    assert removed >= 1


@pytest.mark.parametrize(
    "text",
    [
        "the token of fleet lacks the scope operate",
        '{"torque_nm": 40.0, "sha256": "2c26b46b68ffc68ff99b453c1d304134"}',
        "GET https://example.com/health 200",
        '{"environment_names": ["MLRUNBOOK_GATEWAY_TOKEN", "PATH"]}',
    ],
)
def test_what_is_no_secret_stays_as_it_was(text: str) -> None:
    assert without_secrets(text.encode()) == (text.encode(), 0)


@pytest.mark.parametrize(
    "piece",
    ["eyJa.", "token-", "token-:", "password ", "-----BEGIN X PRIVATE KEY-----\n", "-----BEGIN ", "a://u:", "Bearer ", 'secret\\"', "a.a@"],
)
def test_text_that_is_made_to_keep_the_search_for_secrets_busy_is_searched_in_no_time(piece: str) -> None:
    """Nothing may be altered before the evidence is kept: containment would wait for it."""
    begun_s = time.process_time()
    without_secrets((piece * (200_000 // len(piece))).encode())
    assert time.process_time() - begun_s < 5


@pytest.mark.parametrize(
    "key", ["-----BEGIN RSA PRIVATE KEY-----\nMII/x\n-----END RSA PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\nMIIEcut"]
)
def test_a_private_key_is_blacked_out_also_where_its_end_was_cut_off(key: str) -> None:
    assert without_secrets(f"log {key}".encode()) == (f"log {BLACKED_OUT}".encode(), 1)
