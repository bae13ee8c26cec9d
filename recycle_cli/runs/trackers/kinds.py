"""The table behind `--log`."""

from recycle_cli.runs.trackers.contract import Kind
from recycle_cli.runs.trackers.mlflow import MLflow
from recycle_cli.runs.trackers.table import Table
from recycle_cli.runs.trackers.tensorboard import TensorBoard
from recycle_cli.runs.trackers.trackio import Trackio
from recycle_cli.runs.trackers.wandb import WeightsAndBiases, log_in

TRACKERS: dict[str, Kind] = {
    "csv": Kind(None, Table),
    "tensorboard": Kind("tensorboard", TensorBoard),
    "wandb": Kind("wandb", WeightsAndBiases, log_in),
    "mlflow": Kind("mlflow", MLflow),
    "trackio": Kind("trackio", Trackio),
}
"""By the names that `--log` takes."""
