"""Predict with a RUN: what the store holds goes straight to the head, the rest through the trunk first."""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from recycle_cli.batches import Indices
from recycle_cli.corpus import Corpus, Example, paths_of
from recycle_cli.disk import STDOUT, Read, keep_apart
from recycle_cli.errors import UsageError
from recycle_cli.keys import Sample
from recycle_cli.models.outputs import Outputs
from recycle_cli.reports import Bar, say
from recycle_cli.runs import kind_of_output, names_beside, open_output, own_paths, usual_ending
from recycle_cli.runtime.overlap import prefetch
from recycle_cli.scorer import Rows, Scorer, open_scorer
from recycle_cli.settings import CorpusSettings, ModelSettings, PredictSettings
from recycle_cli.store import SegmentWriter
from recycle_cli.tasks import LabelledScores, Task, read_corpus
from recycle_cli.trunk import Reject, Tally, TrunkBatch, Window, batches_of, origins_of, prepared_ahead
from recycle_cli.verbs.required import check_figures, refuse_unmeasured


@dataclass(frozen=True)
class Predicted:
    """What a prediction did. `metrics` are there if the data are labelled, else `no_metrics` gives the reason; they are
    of `labelled_samples`, which may be fewer than all; times in seconds."""

    samples: int
    hits: int
    misses: int
    hit_share: float
    seconds: float
    samples_per_second: float
    metrics: dict[str, float] | None
    output: str
    failed_samples: int
    no_metrics: str | None = None
    labelled_samples: int = 0


def predict(
    data: CorpusSettings,
    run: str,
    store: str | None,
    output: str | None,
    model: ModelSettings,
    settings: PredictSettings,
) -> Predicted:
    """Score a corpus with a RUN and write a record an example, in the corpus's order; without `output` into the RUN.

    Raises BarError, with the report, if the predictions miss what the settings require.
    """
    if settings.write_back and store is None:
        raise UsageError("--write-back needs a --store to write to")
    scorer = open_scorer(run, store, model, settings)
    (loaded,) = scorer.runs.values()
    columns = loaded.task.columns(())
    usual = f"{run.rstrip('/')}/predictions"
    ending = f".{settings.output_format}" if settings.output_format else usual_ending(columns)
    output = output or f"{usual}{ending}"
    kind_of_output(output, columns, settings.output_format, loaded.task.keyed_by_id, csv_safe=settings.csv_safe)
    failures = data.failures or f"{usual if output == STDOUT else output}.failures.jsonl"
    read = [*paths_of(data.source), Read(run), *map(Read, own_paths(run, loaded.info))]
    written = {"--failures": failures} | ({} if output == STDOUT else {"--output": output})
    keep_apart([*read, Read(store, whole=True)] if store else read, written)
    trained = tuple((loaded.info.columns or {}).items())
    data = replace(data, failures=failures, trained=trained, kept=settings.keep_columns)
    corpus = read_corpus(data, loaded.task, lambda: scorer.preprocessor)
    corpus.tell_columns()
    _refuse_unmeasured(settings, loaded.task, corpus)
    with corpus.progress("predict") as progress:
        report = score(scorer, corpus, output, progress)
    check_figures(report, settings.require, report.no_metrics or "")
    return report


def _refuse_unmeasured(settings: PredictSettings, task: Task, corpus: Corpus) -> None:
    unlabelled = task.needs_labels and corpus.columns.label is None
    where = "without a column of labels, which --label-column names" if unlabelled else "here"
    refuse_unmeasured(settings.require, () if unlabelled else task.metrics, Predicted, where=where)


def score(scorer: Scorer, corpus: Corpus, output: str, progress: Bar) -> Predicted:
    """Score a corpus with the scorer's only RUN; `seconds` are those of all but the metrics."""
    ((name, run),) = scorer.runs.items()
    task, names = run.task, run.names
    columns = task.columns(names)
    kept = _kept(corpus, columns)
    scores = LabelledScores(task, names, lambda: scorer.preprocessor)
    assembly, tally = Assembly(), Tally()
    with ExitStack() as stack:
        form, safe = scorer.settings.output_format, scorer.settings.csv_safe
        out = stack.enter_context(
            open_output(output, columns, kept=kept, format=form, keyed=task.keyed_by_id, csv_safe=safe)
        )
        writer = stack.enter_context(_writer(scorer))
        for work in prefetch(_work(scorer, assembly.samples(corpus), corpus.reject)):
            scored = work.scored
            if len(work.members):
                scored.put(work.members, work.answers(scorer, writer)[name])
            tally.reused += int((scored.window.positions[work.members] >= 0).sum())
            tally.samples += len(work.members)
            progress.update(len(work.members), note=f"{tally.reused_share:.0%} hits")
            if scored.left == 0:
                for examples, outputs in assembly.finished(scored):
                    out(examples, run.answers(outputs, examples, lambda: scorer.preprocessor))
                    scores.add(examples, outputs)
    seconds = tally.seconds
    corpus.failures.tell()
    return _report(tally, seconds, scores, corpus, output)


def _report(tally: Tally, seconds: float, scores: LabelledScores, corpus: Corpus, output: str) -> Predicted:
    """The counts of a finished prediction, with its metrics. Says if those are not of all samples."""
    metrics, unread = scores.figures(), _unread(corpus)
    if metrics is not None and scores.samples < tally.samples:
        labelled = f"{scores.samples:,} of {tally.samples:,} samples"
        say(f"the metrics are those of {labelled}, which alone have a label{unread}")
    why_none = scores.why_none(corpus.columns.label)
    return Predicted(
        samples=tally.samples,
        hits=tally.reused,
        misses=tally.samples - tally.reused,
        hit_share=tally.reused_share,
        seconds=seconds,
        samples_per_second=tally.samples / seconds,
        metrics=metrics,
        output=output,
        failed_samples=corpus.failed,
        no_metrics=why_none and f"{why_none}{unread}",
        labelled_samples=scores.samples,
    )


def _kept(corpus: Corpus, columns: Mapping[str, str]) -> dict[str, str]:
    """The names in the file of the columns that are kept; the id is there anyway. Those that are not their own are
    told."""
    kept = [column for column in corpus.kept if column != "id" or corpus.columns.id != "id"]
    names = names_beside(kept, ["id", *columns])
    if renamed := [f"{column!r} as {name!r}" for column, name in names.items() if name != column]:
        say(f"--keep-columns: writing {', '.join(renamed)}, beside those of the predictions")
    return names


def _unread(corpus: Corpus) -> str:
    """How many labels were passed over because they cannot be read; nothing if none were."""
    count = corpus.unread_labels
    return f"; {count:,} that cannot be read are left out, the first since {corpus.unread_label}" if count else ""


@dataclass
class Scored:
    """A window whose outputs come batch by batch. `kept`: the places of the samples that get an output, ascending;
    `left`: how many of these have none yet."""

    window: Window
    kept: Indices
    left: int
    _values: torch.Tensor | None = None
    _each: dict[int, torch.Tensor] = field(default_factory=dict)

    def put(self, members: Indices, outputs: Outputs) -> None:
        """The outputs of some samples of the window."""
        self.left -= len(members)
        if outputs.lengths is not None:
            self._each |= dict(zip(members.tolist(), outputs.each(), strict=True))
            return
        if self._values is None:
            self._values = outputs.values.new_empty(len(self.window.samples), *outputs.values.shape[1:])
        self._values[torch.from_numpy(members)] = outputs.values

    def outputs(self, places: Indices) -> Outputs:
        """The outputs of the samples at these places."""
        if self._values is not None:
            return Outputs(self._values[torch.from_numpy(places)])
        return Outputs.of([self._each[place] for place in places.tolist()])


class Assembly:
    """Collects the outputs of an example's samples, and gives examples back in the corpus's order."""

    def __init__(self) -> None:
        self._waiting: deque[Example] = deque()
        self._begun: list[torch.Tensor | None] = []

    def samples(self, corpus: Corpus) -> Iterator[Sample]:
        """The samples of a corpus, whose examples wait for their outputs."""
        for example in corpus:
            self._waiting.append(example)
            yield from example.samples

    def finished(self, scored: Scored) -> Iterator[tuple[list[Example], Outputs]]:
        """The examples that a finished window completes, with the outputs of their samples. Those with a sample that
        could not be used are left out."""
        count = len(scored.window.samples)
        if not self._begun and all(len(self._waiting[at].samples) == 1 for at in range(count)):
            examples = [self._waiting.popleft() for _ in range(count)]
            if len(scored.kept):
                yield [examples[place] for place in scored.kept.tolist()], scored.outputs(scored.kept)
            return
        usable = scored.outputs(scored.kept).each() if len(scored.kept) else []
        each: list[torch.Tensor | None] = [None] * count
        for place, own in zip(scored.kept.tolist(), usable, strict=True):
            each[place] = own
        self._begun += each
        whole: list[Example] = []
        outputs: list[torch.Tensor] = []
        at = 0
        while self._waiting and at + len(self._waiting[0].samples) <= len(self._begun):
            example = self._waiting.popleft()
            own_outputs = self._begun[at : at + len(example.samples)]
            at += len(example.samples)
            present = [one for one in own_outputs if one is not None]
            if len(present) == len(own_outputs):
                whole.append(example)
                outputs += present
        del self._begun[:at]
        if whole:
            yield whole, Outputs.of(outputs)


@dataclass(frozen=True)
class Work:
    """One batch for the heads: either stored rows, or inputs that go through the trunk first."""

    scored: Scored
    members: Indices
    rows: Rows | None = None
    inputs: TrunkBatch | None = None

    def answers(self, scorer: Scorer, writer: SegmentWriter | None) -> dict[str, Outputs]:
        """The outputs of each RUN, float32 on the CPU."""
        if self.rows is not None:
            return scorer.from_rows(self.rows, self.scored.window, self.members)
        assert self.inputs is not None
        return scorer.from_inputs(self.inputs, self.scored.window, writer)


def _work(scorer: Scorer, samples: Iterator[Sample], reject: Reject) -> Iterator[Work]:
    """All batches of all windows: hits first, then misses, each sorted by length.

    A sample that cannot be prepared goes to `reject` and gets no prediction.
    """
    ahead = prepared_ahead(
        samples, scorer.preprocessor, scorer.settings.window, scorer.lookup, scorer.to_prepare, reject
    )
    for ready in ahead:
        window = ready.window
        kept = np.sort(np.concatenate([scorer.ready(window), ready.places]))
        scored = Scored(window, kept, len(kept))
        for members, rows in scorer.hits(window):
            yield Work(scored, members, rows=rows)
        for batch in batches_of(ready.places, ready.prepared, scorer.preprocessor, scorer.batch_tokens):
            yield Work(scored, batch.members, inputs=batch)
        if not len(kept):
            yield Work(scored, kept)  # nothing to compute, but its examples are done with


def _writer(scorer: Scorer) -> "SegmentWriter | nullcontext[None]":
    if scorer.store is None or not scorer.settings.write_back:
        return nullcontext()
    origins = origins_of(scorer.first.task.samples_as(scorer.first.info.task))
    return scorer.store.writer(codec=scorer.store.codec, origins=origins)
