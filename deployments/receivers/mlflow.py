"""MLflow 3.3 or later, with a SQL backend: tell the gateway of versions and aliases. Run it once, beside your tracking server's settings.

The server needs MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY; the gateway the same secret in MLRUNBOOK_WEBHOOK_SECRET_MLFLOW.
"""

import os

from mlflow import MlflowClient

MlflowClient().create_webhook(
    name="mlrunbook",
    url="https://runbook.example.com/webhooks/mlflow",
    events=["model_version.created", "model_version_alias.created", "model_version_alias.deleted"],
    secret=os.environ["MLRUNBOOK_WEBHOOK_SECRET_MLFLOW"],
)
