"""Arguments and options that commands share: each name, help text and environment variable written once."""

import re
from typing import Annotated, Any, Literal

import typer

from recycle_cli.errors import UsageError
from recycle_cli.settings import ImageSettings


def numbers(name: str, text: str | None) -> tuple[float, ...]:
    """`224` or `0.5,0.4,0.3` as numbers; nothing where the option is not given. Raises UsageError."""
    try:
        return tuple(float(word) for word in text.split(",")) if text else ()
    except ValueError:
        raise UsageError(
            f"{name} {text}: expected numbers with commas between them, such as 256 or 0.5,0.5,0.5"
        ) from None


def image_settings(
    weights: str | None,
    resize: str | None,
    crop: str | None,
    mean: str | None,
    std: str | None,
    head_batchnorm: Literal["train", "eval"] = "train",
) -> ImageSettings:
    """The options of image models as one."""
    sides = [
        tuple(int(side) for side in numbers(name, text)) for name, text in (("--resize", resize), ("--crop", crop))
    ]
    colors = [numbers(name, text) for name, text in (("--mean", mean), ("--std", std))]
    return ImageSettings(weights, sides[0], sides[1], colors[0], colors[1], head_batchnorm=head_batchnorm)


def option(name: str, help_text: str, *more: str, **settings: Any) -> Any:
    """An option that also reads RECYCLE_<NAME> from the environment."""
    variable = f"RECYCLE_{name.removeprefix('--').split('/')[0].replace('-', '_').upper()}"
    return typer.Option(name, *more, help=help_text, envvar=variable, **settings)


CorpusArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="CORPUS...",
        help="CSV, TSV, JSON lines, Parquet, Arrow or text files (globs too), folders of images, a saved dataset "
        "folder, or hub:NAME[:config][:split]",
    ),
]
DataArgument = Annotated[
    str, typer.Argument(metavar="DATA", help="Labelled records: as CORPUS, one file, glob or name")
]
StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="The store's folder")]

TextColumn = Annotated[str | None, option("--text-column", "Column of the text; found where it is obvious")]
TextPairColumn = Annotated[str | None, option("--text-pair-column", "Column of the second text of a pair")]
LabelColumn = Annotated[str | None, option("--label-column", "Column of the label; found where it is obvious")]
ImageColumn = Annotated[
    str | None, option("--image-column", "Column of the image: its bytes or its file's path; found where it is obvious")
]
IdColumn = Annotated[
    str | None, option("--id-column", "Column that names a record; else an image's path, or its number, from 0")
]
Limit = Annotated[int | None, option("--limit", "Read only the first so many records", min=1)]
OnError = Annotated[Literal["fail", "skip"], option("--on-error", "What a record that cannot be used does")]
Failures = Annotated[str | None, option("--failures", "Where --on-error skip lists what it left out (JSON lines)")]

Model = Annotated[str, option("--model", "Pretrained model: a name on the hub or of torchvision's, or a folder")]
Revision = Annotated[str | None, option("--revision", "Branch, tag or commit of the model on the hub")]
MaxLength = Annotated[int | None, option("--max-length", "Tokens a sample at most; else what the model takes", min=2)]
TrustRemoteCode = Annotated[bool, option("--trust-remote-code", "Run code that comes with the model")]
Device = Annotated[str, option("--device", "auto, cpu, cuda, cuda:1, mps")]
Precision = Annotated[
    Literal["float32", "bfloat16", "float16"], option("--precision", "Of the computation; the smaller ones are mixed")
]
Task = Annotated[
    Literal["text-classification", "image-classification", "similarity"],
    option("--task", "What the head is trained for"),
]
MultiLabel = Annotated[
    bool, option("--multi-label", "A record may have several labels: a list of them, or one text with | between them")
]
Loss = Annotated[Literal["triplet", "supervised-contrastive"], option("--loss", "Similarity: what pulls groups apart")]
Margin = Annotated[
    float,
    option("--margin", "Of the triplet loss: how much farther than the own group another must be", min=0.0),
]
Temperature = Annotated[
    float, option("--temperature", "Of the contrastive loss; small ones weigh the nearest", min=1e-4)
]
GroupSamples = Annotated[
    int, option("--group-samples", "Similarity: samples of a group that come into a batch together", min=2)
]
Embedding = Annotated[
    Literal["skip", "linear"],
    option("--embedding", "Similarity: the new last layer; skip adds to what comes in, linear replaces it"),
]
EmbeddingSize = Annotated[
    int | None, option("--embedding-size", "Numbers of the embedding (linear only); else as many as come in", min=1)
]

Cuts = Annotated[
    list[str], option("--cut", "Where the trunk ends: blocks (3), a module (layer3), a share (50%); may repeat")
]
Cut = Annotated[
    str | None,
    option("--cut", "Where the head begins: blocks (3), a module (layer3), a share (50%), 0 for all; else the store's"),
]
Dtype = Annotated[
    Literal["float16", "bfloat16", "float32", "int8"],
    option("--dtype", "How the rows are stored; int8 has a scale a row"),
]
BatchTokens = Annotated[
    int | None, option("--batch-tokens", "Padded tokens a batch at most; else 4096 on a CPU, 32768 elsewhere", min=1)
]


def size(text: str) -> int:
    """Bytes from `4GiB`, `500MB` or `1000`. Raises BadParameter for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise typer.BadParameter(f"{text!r}: expected a size above 0, as 4GiB, 500MB or a number of bytes")
    power = " KMGT".index(found[2].upper() or " ")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)


def failures_beside(store: str) -> str:
    """Where failures are listed unless told otherwise: beside a local store, here for a bucket's."""
    name = store.rstrip("/")
    return f"{name.rpartition('/')[2] if '://' in name else name}.failures.jsonl"


Codec = Annotated[
    Literal["none", "lz4", "zstd", "auto"],
    option("--codec", "Compress the rows; none is read fastest, auto compresses only where it pays"),
]
MaxDisk = Annotated[
    int | None, option("--max-disk", "Stop, sealed, before the store passes this size (20GiB)", parser=size)
]
Memory = Annotated[
    int | None,
    option("--memory", "Read the store in shuffled windows within this size (4GiB); else as fits", parser=size),
]
SegmentBytes = Annotated[
    int, option("--segment-bytes", "Seal what is done at about so many bytes: the most a crash can lose", min=1)
]
Weights = Annotated[
    str | None,
    option("--weights", "Of a torchvision model: a weights' name, a .safetensors or .pth file, none for random ones"),
]
Resize = Annotated[str | None, option("--resize", "Images: shorter side, or HEIGHT,WIDTH; else the weights' own")]
Crop = Annotated[str | None, option("--crop", "Images: middle crop, SIDE or HEIGHT,WIDTH; else the weights' own")]
Mean = Annotated[str | None, option("--mean", "Images: mean of R,G,B from 0 to 1; else the weights' own")]
Std = Annotated[str | None, option("--std", "Images: deviation of R,G,B; else the weights' own")]
HeadBatchnorm = Annotated[
    Literal["train", "eval"], option("--head-batchnorm", "Statistics of the head's BatchNorm; the trunk's never move")
]
Views = Annotated[int, option("--views", "Augmented views of each image beside the plain one", min=0)]
Augment = Annotated[
    str,
    option("--augment", "What makes a view: random-resized-crop or random-crop, flip, color-jitter, as in flip(0.5)"),
]
Json = Annotated[bool, option("--json", "Print one JSON object on stdout")]
