"""Which pretrained model, and how it computes."""

from dataclasses import dataclass
from typing import Literal

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class ImageSettings:
    """How an image model gets its weights and its images. Unset fields keep the weights' own values.

    weights    a name of torchvision's, a file, or `none`
    transform  a whole transform as JSON, as a store keeps it; `resize`, `crop`, `mean` and `std` change it
    """

    weights: str | None = None
    resize: tuple[int, ...] = ()
    crop: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    transform: str | None = None
    head_batchnorm: Literal["train", "eval"] = "train"


@dataclass(frozen=True)
class ViewSettings:
    """Augmented views of each image beside the plain one; 0 for none."""

    views: int = 0
    augment: str = "random-resized-crop,flip,color-jitter"


@dataclass(frozen=True)
class ModelSettings:
    """Which pretrained model, and how it computes. `max_length` None: the longest that the model takes, at most 512."""

    name: str = MINILM
    revision: str | None = None
    max_length: int | None = None
    trust_remote_code: bool = False
    device: str = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    images: ImageSettings = ImageSettings()
