"""The options of a pretrained model: which one, and how it computes."""

from dataclasses import dataclass
from typing import Literal

from recycle_cli.settings.option import option
from recycle_cli.settings.reading import numbers, sides

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class ImageSettings:
    """How an image model gets its weights and its images. Unset fields keep the weights' own values.

    weights    a name of torchvision's, a file, or `none`
    transform  a whole transform as JSON, as a store keeps it; `resize`, `crop`, `mean` and `std` change it
    """

    weights: str | None = option(
        None,
        "Weights of a torchvision model: their name, a .safetensors or .pth file, or none for random ones.",
        "Images",
    )
    resize: tuple[int, ...] = option(
        (),
        "Resize images to this length of their shorter side, or to HEIGHT,WIDTH; by default as the weights expect.",
        "Images",
        parser=sides,
    )
    crop: tuple[int, ...] = option(
        (),
        "Cut a square of this side, or HEIGHT,WIDTH, out of the middle of an image; by default as the weights expect.",
        "Images",
        parser=sides,
    )
    mean: tuple[float, ...] = option(
        (),
        "Subtract this mean of the colors, R,G,B from 0 to 1; by default the weights' own.",
        "Images",
        parser=numbers,
    )
    std: tuple[float, ...] = option(
        (),
        "Divide by this standard deviation of the colors, R,G,B; by default the weights' own.",
        "Images",
        parser=numbers,
    )
    transform: str | None = None
    head_batchnorm: Literal["train", "eval"] = option(
        "train",
        "Update the BatchNorm statistics of the head (train), or keep the pretrained ones (eval); those of the trunk "
        "never change.",
        "Images",
    )


@dataclass(frozen=True)
class ViewSettings:
    """Augmented views of each image beside the plain one; 0 for none."""

    views: int = option(0, "Use this many augmented views of each image beside the plain one.", "Images", minimum=0)
    augment: str = option(
        "random-resized-crop,flip,color-jitter",
        "How a view is made: random-resized-crop or random-crop, flip, color-jitter; parameters follow in brackets, as "
        "in flip(0.5).",
        "Images",
    )


@dataclass(frozen=True)
class ModelSettings:
    """Which pretrained model, and how it computes. `max_length` None: the longest that the model takes, at most 512."""

    name: str = option(
        MINILM,
        "Pretrained model: a folder, or a name on the Hugging Face hub or in torchvision.",
        "Model and cut",
        name="model",
        usual=True,
    )
    revision: str | None = option(None, "Branch, tag or commit of the model on the hub.", "Model and cut")
    max_length: int | None = option(
        None,
        "Truncate a text after this many tokens; by default at the model's limit, but at most 512.",
        "Model and cut",
        minimum=2,
        usual=True,
    )
    trust_remote_code: bool = option(False, "Run code that comes with the model.", "Model and cut")
    device: str = option("auto", "Compute on this device: auto, cpu, cuda, cuda:1 or mps.", "Model and cut")
    precision: Literal["float32", "bfloat16", "float16"] = option(
        "float32", "Precision of the computation; bfloat16 and float16 mean mixed precision.", "Model and cut"
    )
    images: ImageSettings = ImageSettings()
