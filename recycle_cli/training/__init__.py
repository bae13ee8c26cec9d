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
from recycle_cli.training.loop import train
from recycle_cli.training.new_trainer import Destination, new_trainer, trainer_of
from recycle_cli.training.parallel.start import check_alone, check_parallel, share_out
from recycle_cli.training.probe_head import ProbeHead, poolings_of
from recycle_cli.training.proof import prove_training
from recycle_cli.training.setup import Setup, frozen, set_up, set_up_states, source_of
from recycle_cli.training.solving import solve
from recycle_cli.training.states_head import StatesHead
from recycle_cli.training.states_run import base_again, prove_network
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
    "StatesHead",
    "Trainer",
    "TrainingData",
    "base_again",
    "begin_as",
    "check_alone",
    "check_data",
    "check_head_name",
    "check_heads",
    "check_parallel",
    "check_sources",
    "checked_batches",
    "frozen",
    "identity_of",
    "is_solved",
    "leave_run",
    "modality_asked",
    "new_trainer",
    "poolings_of",
    "prove_network",
    "prove_training",
    "read_data",
    "read_labelled",
    "read_one",
    "refuse_idle_options",
    "set_up",
    "set_up_states",
    "share_out",
    "solve",
    "source_of",
    "task_asked",
    "together",
    "train",
    "trainer_of",
    "usable_data",
]
