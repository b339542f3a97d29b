"""MLflow."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from mezo.sinks.base import Begun, Sink, SinkPoint

BATCH = 1000  # metrics in a request, at most: MLflow's own bound
PARAMETERS = 100  # settings in a request, the same
LONGEST = 500  # letters of a setting's value that are sent; the least of MLflow's bounds over its versions


class MLflow(Sink):
    """MLflow, by its client. Its environment variables set the tracking server and the experiment.

    Example:
        mezo train --task demo --steps 3 --log mlflow
    """

    every = 2.0  # each write is a request

    def open(self, begun: Begun) -> str:
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

        self._client = MlflowClient()
        if begun.id is None:
            self._id = self._created(begun)
        else:
            self._id = begun.id
            self._client.update_run(self._id, status="RUNNING")
        return self._id

    def _created(self, begun: Begun) -> str:
        from mlflow.entities import Param  # pyright: ignore[reportMissingImports]

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "mezo")
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        run = self._client.create_run(
            os.environ.get("MLFLOW_EXPERIMENT_ID", experiment), run_name=begun.run.resolve().name
        )
        settings = [Param(k, str(v)[:LONGEST]) for k, v in begun.settings.items() if v is not None]
        for start in range(0, len(settings), PARAMETERS):
            self._client.log_batch(run.info.run_id, params=settings[start : start + PARAMETERS])
        return run.info.run_id

    def write(self, points: Sequence[SinkPoint]) -> None:
        metrics = list(_metrics(points))
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(self._id, metrics=metrics[start : start + BATCH])

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


def _metrics(points: Sequence[SinkPoint]) -> Iterator[Any]:
    """What of the points is finite: some of MLflow's stores take nothing else."""
    from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

    for point in points:
        for name, value in point.numbers.items():
            if math.isfinite(value):
                yield Metric(re.sub(r"[^\w.:/ -]", "_", name), value, round(1000 * point.time), point.step)
