"""The corpus of a task: its records as the samples that the task asks for, the same for every command."""

from collections.abc import Callable
from functools import cache

from recycle_cli.corpus import FORMS, Corpus, Failure
from recycle_cli.errors import UsageError
from recycle_cli.models import NamedModel, OpenPreprocessor
from recycle_cli.settings import CorpusSettings, SampleSettings, TaskSettings, WindowedSettings
from recycle_cli.settings.option import changed_options
from recycle_cli.tasks.contract import Task
from recycle_cli.tasks.kinds import KINDS, task_of


def read_corpus(
    settings: CorpusSettings,
    task: Task,
    preprocessor: OpenPreprocessor,
    *,
    labelled: bool = False,
    on_failure: Callable[[Failure], None] | None = None,
) -> Corpus:
    """The examples of a task. `labelled`: every record must have a label. `preprocessor` finds windows of long texts.

    Raises DataError as Corpus does.
    """
    return Corpus(
        settings,
        form=task.form,
        read_label=task.read_label,
        expand=task.expand(preprocessor),
        labelled=labelled,
        on_failure=on_failure,
    )


def read_samples(
    settings: CorpusSettings,
    samples: SampleSettings,
    model: NamedModel,
    on_failure: Callable[[Failure], None] | None = None,
) -> Corpus:
    """The examples whose samples a store is to hold: plain records, or those of a task. `on_failure` is called for each
    record that is skipped.

    Raises DataError as Corpus does, and UsageError for a task of other inputs or an option that it does not take.
    """
    task = task_of_samples(samples, model)
    if task is None:
        return Corpus(settings, form=FORMS[model.modality], on_failure=on_failure)
    return read_corpus(settings, task, cache(model.preprocessor), on_failure=on_failure)


def task_of_samples(samples: SampleSettings, model: NamedModel) -> Task | None:
    """The task whose samples are asked for; None for records as they are. Raises UsageError as `read_samples` does."""
    if samples.task is not None:
        return task_of(samples.task, model.modality, _options(samples), model.name)
    if given := changed_options(samples):
        raise UsageError(f"{', '.join(given)}: a record is its own sample here; name the --task that has windows")
    return None


def _options(samples: SampleSettings) -> TaskSettings | None:
    """The task's own options, as far as they decide its samples."""
    kind = KINDS.get(str(samples.task))
    if kind is not None and issubclass(kind.settings, WindowedSettings):
        return kind.settings(windows=samples.windows)
    if given := changed_options(samples.windows):
        takers = [name for name, one in KINDS.items() if issubclass(one.settings, WindowedSettings)]
        raise UsageError(
            f"{', '.join(given)}: only --task {' or '.join(takers)} takes it; leave it out of --task {samples.task}"
        )
    return None
