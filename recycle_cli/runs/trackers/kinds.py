"""The table behind `--log`."""

from recycle_cli.runs.trackers.contract import TrackerKind
from recycle_cli.runs.trackers.mlflow import MLflow
from recycle_cli.runs.trackers.table import CsvTable
from recycle_cli.runs.trackers.tensorboard import TensorBoard
from recycle_cli.runs.trackers.trackio import Trackio
from recycle_cli.runs.trackers.wandb import WeightsAndBiases, log_in

TRACKERS: dict[str, TrackerKind] = {
    "csv": TrackerKind(None, CsvTable),
    "tensorboard": TrackerKind("tensorboard", TensorBoard),
    "wandb": TrackerKind("wandb", WeightsAndBiases, log_in),
    "mlflow": TrackerKind("mlflow", MLflow),
    "trackio": TrackerKind("trackio", Trackio),
}
"""By the names that `--log` takes."""
