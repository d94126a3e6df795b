"""A team that has MLflow, a prediction log in Parquet and a model server of its own, played on one machine by real parts."""
