"""Examples to a trained head."""

from recycle_cli.training.checks import (
    check_data,
    check_head_name,
    check_heads,
    check_sources,
    checked_batches,
    is_solved,
    modality_asked,
    refuse_idle_options,
    task_asked,
)
from recycle_cli.training.examples import TrainingData, read_data, usable_data
from recycle_cli.training.finish import Finetuned, FinetunedHeads, Origin, leave_run, together
from recycle_cli.training.head import Head
from recycle_cli.training.head_init import begin_as
from recycle_cli.training.identity import identity_of
from recycle_cli.training.labelled_data import LabelledData, read_labelled, read_one
from recycle_cli.training.ladder_head import LadderHead
from recycle_cli.training.ladder_run import prove_ladder, read_ladder
from recycle_cli.training.loop import train
from recycle_cli.training.new_trainer import Destination, new_trainer, trainer_of
from recycle_cli.training.probe_head import ProbeHead, poolings_of
from recycle_cli.training.probe_run import prove_probe, read_probe
from recycle_cli.training.proof import prove_training
from recycle_cli.training.setup import Setup, frozen, set_up, set_up_states, source_of
from recycle_cli.training.solving import solve
from recycle_cli.training.trainer import Trainer

__all__ = [
    "Destination",
    "Finetuned",
    "FinetunedHeads",
    "Head",
    "LabelledData",
    "LadderHead",
    "Origin",
    "ProbeHead",
    "Setup",
    "Trainer",
    "TrainingData",
    "begin_as",
    "check_data",
    "check_head_name",
    "check_heads",
    "check_sources",
    "checked_batches",
    "frozen",
    "identity_of",
    "is_solved",
    "leave_run",
    "modality_asked",
    "new_trainer",
    "poolings_of",
    "prove_ladder",
    "prove_probe",
    "prove_training",
    "read_data",
    "read_labelled",
    "read_ladder",
    "read_one",
    "read_probe",
    "refuse_idle_options",
    "set_up",
    "set_up_states",
    "solve",
    "source_of",
    "task_asked",
    "together",
    "train",
    "trainer_of",
    "usable_data",
]
