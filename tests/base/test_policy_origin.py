"""Each value of one model's policy with the line that it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mlrunbook.base.policy_file import lines_of, load
from mlrunbook.base.policy_origin import origins, shown
from mlrunbook.domain.policy.policy import Policy

FILE = """\
mode: propose
channels: {churn_page: a pager}
triage:
  looks: 5
models:
  "churn_*":
    owner: Customer ML
    channels: {page: churn_page}
    alerts:
      f1_drop_critical: 0.4
      f1_drop_warning: 0.3
  churn_eu:
    mode: act
    alerts: {f1_drop_critical: 0.5}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "team.yaml"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize(
    ("at", "line", "of"),
    [
        ("model.owner", 7, "churn_*"),
        ("mode", 13, "churn_eu"),
        ("alerts.f1_drop_critical", 14, "churn_eu"),
        ("alerts.f1_drop_warning", 11, "churn_*"),
        ("alerts.null_rate_warning", None, ""),
        ("escalation.ml_team_lead.channels", 8, "churn_*"),
        ("escalation.compliance_officer.channels", None, ""),
        ("triage.looks", 4, ""),
    ],
)
def test_a_value_comes_from_the_line_of_its_pattern_of_the_top_or_is_built_in(file: Path, at: str, line: int | None, of: str) -> None:
    found = {".".join(map(str, one.at)): one for one in origins(load(file), lines_of(file), "churn_eu")}
    assert (found[at].line, found[at].of) == (line, of)


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("has_file", [False, True])
def test_it_is_yaml_of_what_holds_and_fits_on_a_screen(file: Path, everything: bool, has_file: bool) -> None:
    policy = load(file) if has_file else Policy()
    text = shown(policy, file if has_file else None, "churn_eu", everything=everything)
    assert max(map(len, text.splitlines())) <= 80
    said = yaml.safe_load(text) or {}
    if has_file:
        assert said["alerts"]["f1_drop_critical"] == 0.5
    assert ("drift" in said) is everything
    if everything:
        assert said["training"]["command"] == list(policy.training.command)
