"""What a flow run finds in its environment."""

from __future__ import annotations

from mlrunbook.base.run_environment import kept


def test_a_run_reaches_the_connections_of_the_policy_and_learns_no_other_secret() -> None:
    ours = {"MLRUNBOOK_CONNECTION_ML": "https://mlflow.example.com", "MLRUNBOOK_CONNECTION_ML_TOKEN": "s3cret"}
    others = {
        "MLRUNBOOK_GATEWAY_TOKEN": "s3cret",
        "MLRUNBOOK_CHANNEL_PAGER": "pagerduty://s3cret",
        "MLRUNBOOK_WEBHOOK_SECRET_MLFLOW": "s3cret",
    }
    assert kept(ours | others) == ours
