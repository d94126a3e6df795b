"""The Dockerfile, as far as it can be judged without a Docker engine."""

from __future__ import annotations

import re
import tomllib

from mlrunbook.domain.policy.audits import AuditPolicy
from tests.docs.pages import ROOT

DOCKERFILE = (ROOT / "deployments" / "Dockerfile").read_text()
_PINNED = re.compile(r"^([a-z0-9._-]+)==(\S+)", re.MULTILINE)


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignore = (ROOT / ".dockerignore").read_text().split()
    sources = [word for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]]
    assert len(sources) > 8
    assert [name for name in sources if not (ROOT / name).exists()] == []
    assert {f"!{name}" for name in sources} == {word for word in ignore if word.startswith("!")}


def test_what_the_quarterly_audit_looks_for_is_in_the_image() -> None:
    copied = re.findall(r"(\S+) \./app/(\S*)$|^COPY (.+) \./app/$", DOCKERFILE, re.MULTILINE)
    folders = [target for _, target, _ in copied if target]
    files = [name for *_, several in copied for name in several.split()]
    policy = AuditPolicy()
    for path in (*policy.documents, policy.model_card):
        assert path in files or any(path.startswith(f"{folder}/") for folder in folders), path


def test_the_image_runs_as_nobody_and_names_no_index() -> None:
    stages = DOCKERFILE.split("\nFROM ")
    assert re.search(r"^USER 10001:10001$", stages[-1], re.MULTILINE)
    assert "://" not in DOCKERFILE
    assert "--require-hashes" in DOCKERFILE
    assert "uv" not in stages[-1].lower().split()  # what builds stays behind


def test_the_images_packages_are_those_that_are_tested() -> None:
    """The runtime's lock is the tested one without what only tests and builds need."""
    whole = dict(_PINNED.findall((ROOT / "requirements.lock").read_text()))
    image = dict(_PINNED.findall((ROOT / "deployments" / "requirements.lock").read_text()))
    assert image.items() <= whole.items()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[\[<>=~! ]", spec)[0] for spec in declared["dependencies"]}
    assert names <= image.keys()
    assert "pytest" not in image
