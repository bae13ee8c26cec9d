"""What makes two trainings the same: all that must not change between an interruption and its resume."""

from dataclasses import replace
from typing import Any

from recycle_cli.runs import read_info
from recycle_cli.settings import Job, TrainingSettings, decisive
from recycle_cli.tasks import Task, chosen_metric, identity_of_layers
from recycle_cli.training.labelled_data import LabelledData
from recycle_cli.training.setup import Setup


def identity_of(
    job: Job,
    setup: Setup,
    settings: TrainingSettings,
    task: Task,
    data: tuple[LabelledData, LabelledData | None],
    order: str,
) -> dict[str, Any]:
    """The settings and digests, by the names that they have had since version 1 of `recycle.json`.

    `order`: the digest of the first epoch's batches, as drawn before BatchNorm has its say on the smallest.
    """
    init = {} if job.head_init is None else {"head_init": read_info(job.head_init).files}
    own, recipe = decisive(replace(settings, task=None)), setup.split.recipe
    own.pop("task")  # The task gives its own options.
    return {
        **own,
        "learning_rate": settings.highest_rate,
        **task.identity(),
        **identity_of_layers(settings.layers),
        "task": job.task,
        "metric": chosen_metric(task, settings.metric),
        "order_seed": settings.shuffle_seed,
        "precision": setup.model.settings.precision,
        "model": setup.model.name,
        "revision": setup.model.settings.revision,
        "max_length": recipe.max_length,
        "preprocessor": recipe.preprocessor,
        "head_batchnorm": setup.model.settings.images.head_batchnorm,
        "cut": setup.cut,
        "data": data[0].digest,
        "evaluation": data[1].digest if data[1] is not None else None,
        "fingerprint": recipe.fingerprint,
        "shuffled_order": order,
        **init,
    }
