"""Values of options as people write them: a size, the sides of an image, its colors, a list of names."""

import math
import re

LOGS = ("csv", "tensorboard", "wandb", "mlflow", "trackio")
"""What the figures of a training can be logged to, beside its own log."""


def size(text: str) -> int:
    """Bytes from `4GiB`, `500MB` or `1000`. Raises ValueError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    power = " KMGT".index(found[2].upper() or " ") if found else 0
    count = float(found[1]) * (1024 if found[3] else 1000) ** power if found else 0.0
    if not 1 <= count < math.inf:
        raise ValueError(f"{text!r}: expected a size of at least one byte, such as 4GiB, 500MB or a number of bytes")
    return int(count)


def counts(text: str) -> tuple[int, ...]:
    """Whole numbers from 1 on, from `1,2,4`. Raises ValueError for anything else, and for one that comes twice."""
    found = tuple(int(one) if one.strip().isdecimal() else 0 for one in text.split(","))
    if not all(found) or len(set(found)) < len(found):
        raise ValueError(f"{text!r}: expected different numbers from 1 on, such as 1,2")
    return found


def numbers(text: str) -> tuple[float, ...]:
    """Numbers from `0.5,0.4,0.3`. Raises ValueError for anything else, nan and inf included."""
    try:
        found = tuple(float(word) for word in text.split(",")) if text else ()
    except ValueError:
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        raise ValueError(f"{text!r}: expected numbers with commas between them, such as 256 or 0.5,0.5,0.5")
    return found


def sides(text: str) -> tuple[int, ...]:
    """Pixels from `224` or `256,192`. Raises ValueError for anything else."""
    found = numbers(text)
    if not all(number.is_integer() for number in found):
        raise ValueError(f"{text!r}: expected whole numbers of pixels, such as 224 or 256,192")
    return tuple(map(int, found))


def names(text: str) -> tuple[str, ...]:
    """Names from `query,value`, without the spaces around them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


POOLINGS = ("mean", "cls", "max", "last")
"""The ways to make one vector of the rows of a sample: their mean, the first, the largest of each number, the last."""


def poolings(text: str) -> tuple[str, ...]:
    """Some of POOLINGS from `max,mean`, in one order and each once. Raises ValueError for any other name."""
    found = names(text.lower())
    for name in found:
        if name not in POOLINGS:
            raise ValueError(f"{name!r}: expected some of {', '.join(POOLINGS)}, with commas between them")
    return tuple(name for name in POOLINGS if name in found)


def logs(text: str) -> tuple[str, ...]:
    """Some of LOGS from `csv,wandb`. Raises ValueError for any other name."""
    found = names(text)
    for name in found:
        if name not in LOGS:
            raise ValueError(f"{name!r}: expected some of {', '.join(LOGS)}, with commas between them")
    return found
