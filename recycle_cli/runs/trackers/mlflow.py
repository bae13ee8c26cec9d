"""`--log mlflow`: a run of the experiment MLFLOW_EXPERIMENT_NAME, `recycle` by default, at MLFLOW_TRACKING_URI."""

import os
import time
from collections.abc import Mapping

from recycle_cli.runs.trackers.contract import About

LONGEST = 500
"""Characters of a parameter that every version of MLflow takes."""


class MLflow:
    """A run of MLflow, through its client: no run is active for the whole process, so that heads have one each."""

    def __init__(self, about: About) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._client, self._metric = MlflowClient(), Metric
        self._logged = 0
        if about.key is None:
            named = {"mlflow.runName": about.name, "mlflow.source.name": "recycle"}
            self.key = self._client.create_run(self._experiment(), tags=named).info.run_id
            parameters = [Param(name, str(value)[:LONGEST]) for name, value in about.settings.items()]
            self._client.log_batch(self.key, params=parameters)
        else:
            self.key = about.key
            self._client.update_run(self.key, status="RUNNING")
            # What was logged beyond the checkpoint is computed again, to the same values.
            self._logged = int(self._client.get_run(self.key).data.metrics.get("step", 0))
        self.where = f"{os.environ.get('MLFLOW_TRACKING_URI', 'mlflow')}, run {self.key}"

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "recycle")
        found = self._client.get_experiment_by_name(name)
        return found.experiment_id if found is not None else self._client.create_experiment(name)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """All figures of a step in one call."""
        if step < self._logged:
            return
        now = int(time.time() * 1000)
        every = {**figures, "step": step}
        self._client.log_batch(self.key, [self._metric(name, value, now, step) for name, value in every.items()])

    def close(self, *, finished: bool) -> None:
        """Mark the run of MLflow as finished or killed."""
        self._client.set_terminated(self.key, "FINISHED" if finished else "KILLED")
