"""MLflow's model registry over its REST API. `import mlflow` takes 7 to 20 s: only what runs models imports it."""
