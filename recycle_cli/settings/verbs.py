"""The options of precompute, finetune and predict, beside those of the corpus and the model."""

from dataclasses import dataclass
from typing import Literal

from recycle_cli.settings.corpus import CorpusSettings
from recycle_cli.settings.model import ViewSettings
from recycle_cli.settings.option import REQUIRED, option, same
from recycle_cli.settings.reading import LOGS, POOLINGS, logs, poolings, size
from recycle_cli.settings.shards import Shard, shard
from recycle_cli.settings.tasks import TASKS, SampleSettings
from recycle_cli.settings.training import TrainingSettings

Dtype = Literal["float16", "bfloat16", "float32", "int8", "int4"]

Codec = Literal["none", "lz4", "zstd", "auto"]


@dataclass(frozen=True)
class PrecomputeSettings:
    """How a store is filled.

    window        samples that are sorted by length together
    first_window  as many of the first ones; None for fewer than in a window, so that the trunk starts soon
    first_seal    seconds after which a first segment is sealed, and the next after half as long as all before it; None
                  for full segments alone
    batch_tokens  padded tokens a batch; None for what suits the device
    """

    cuts: tuple[str, ...] = option(
        ("50%",),
        "Cut the model after this and store what comes out: a number of blocks (3; 0 is the embeddings' output), a "
        "module (layer3), a share of the blocks (50%), every state (every) or every second (every:2), or a list "
        "(0,2,4). May be repeated.",
        "Model and cut",
        name="cut",
        usual=True,
    )
    dtype: Dtype = option(
        "float16",
        "Number format of the stored activations; int8 keeps a scale for each token or image, int4 also one for every "
        "16 numbers.",
        "Store",
        usual=True,
    )
    pool: tuple[str, ...] = option(
        (),
        "Keep one vector a state in place of its rows, for --head pooled: some of "
        f"{', '.join(POOLINGS)}, with commas between them; cls is the first token, last the last.",
        "Store",
        parser=poolings,
        usual=True,
    )
    batch_tokens: int | None = option(
        None,
        "Put at most this many tokens into a batch, padding included; by default 2048 on a CPU, 32768 elsewhere.",
        "Model and cut",
        minimum=1,
    )
    window: int = 16384
    first_window: int | None = None
    first_seal: float | None = None
    segment_bytes: int = option(
        256 * 2**20,
        "Seal a segment of the store at about this many bytes; a crash loses at most one segment.",
        "Store",
        minimum=1,
    )
    codec: Codec = option(
        "none",
        "Compress the store; none is read fastest, and auto compresses only if that pays.",
        "Store",
        usual=True,
    )
    max_disk: int | None = option(
        None,
        "Stop before the store becomes larger than this, such as 20GiB, and keep what is done.",
        "Store",
        parser=size,
        usual=True,
    )
    shard: Shard | None = option(
        None,
        "Compute only this shard of the corpus, so that several processes fill the store together: I/N, counted from "
        "0/N, or what a job's variables say (slurm, torchrun); under torchrun that is the default.",
        "Data",
        parser=shard,
        repeated=False,
    )
    views: ViewSettings = ViewSettings()
    samples: SampleSettings = SampleSettings()


@dataclass(frozen=True)
class Job:
    """The task of a fine-tuning, what it reads, and where it writes its RUN.

    store        the store to train from; None to train from the inputs
    cut          None for the only cut of the store
    model_named  whether the user named the model, so that the store's own is not taken
    """

    data: CorpusSettings
    output: str = option(REQUIRED, "Folder for the RUN: the fine-tuned model and its log.", "Output", usual=True)
    store: str | None = None
    evaluation: CorpusSettings | None = None
    task: str = option(
        "text-classification", "Task that the head is trained for.", "Task", choices=tuple(TASKS), usual=True
    )
    cut: str | None = option(
        None,
        "Train the layers after this: a number of blocks (3), a module (layer3), a share of the blocks (50%), or 0 for "
        "the whole model; by default the store's cut.",
        "Model and cut",
        usual=True,
    )
    reuse: str | None = option(
        None,
        "Add the last rows of another model, which this store holds (--cut 100%), to what the whole model gives its "
        "first block.",
        "Model and cut",
    )
    head_init: str | None = option(
        None,
        "Let the last layer begin with outputs like those of this RUN's pooled head.",
        "Training",
    )
    model_named: bool = False
    overwrite: bool = option(False, "Replace the RUN in the folder --output.", "Output", repeated=False)
    resume: bool = option(
        False, "Go on with the unfinished RUN in the folder --output.", "Output", usual=True, repeated=False
    )
    log: tuple[str, ...] = option(
        (),
        f"Log to these as well, with commas between them: {', '.join(LOGS)}.",
        "Output",
        parser=logs,
    )
    tensorboard: bool = option(True, "Log to TensorBoard if it is installed, also if --log does not name it.", "Output")
    require: tuple[str, ...] = option(
        (),
        "Exit with 6 unless this is true of the trained head, such as 'macro_f1>=0.8'. May be repeated.",
        "Training",
    )


@dataclass(frozen=True)
class PredictSettings:
    """How predictions are made.

    window        samples that are sorted by length together
    batch_tokens  rows a batch; None for what suits the device
    threshold     the least score of a predicted class, if a record may have several
    parity_check  compare a few of the first hits with what the trunk gives now
    """

    batch_tokens: int | None = same(PrecomputeSettings, "batch_tokens")
    window: int = 4096
    write_back: bool = option(False, "Add what had to be computed to the store.", "Store", usual=True)
    threshold: float = option(
        0.5,
        "If a record may have several labels, predict those with at least this score.",
        "Task",
        minimum=0.0,
        maximum=1.0,
        usual=True,
    )
    parity_check: bool = same(TrainingSettings, "parity_check")
    require: tuple[str, ...] = same(
        Job,
        "require",
        help="Exit with 6 unless this is true of the predictions, such as 'macro_f1>=0.8'. May be repeated.",
        panel="Task",
    )
    keep_columns: tuple[str, ...] = option(
        (),
        "Write these columns of the records beside the predictions: names with commas between them, or all. May be "
        "repeated.",
        "Output",
        usual=True,
    )
    output_format: Literal["csv", "jsonl", "parquet"] | None = option(
        None, "Kind of the predictions' file; by default as its name ends, or jsonl for stdout (-).", "Output"
    )
    csv_safe: bool = option(
        False,
        "Write no cell that a spreadsheet takes for a formula, and no control character, into a .csv file.",
        "Output",
    )
