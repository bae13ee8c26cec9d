"""One of several shards of a corpus, for processes that work on it together."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_SLURM = tuple(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "COUNT", "MIN", "MAX"))


@dataclass(frozen=True)
class Shard:
    """Shard `index`, counted from 0, of `of` shards."""

    index: int
    of: int

    def places(self, total: int) -> range:
        """The shard's places among `total`: the shards lie one after another, and their sizes differ by 1 at most."""
        return range(total * self.index // self.of, total * (self.index + 1) // self.of)

    def places_in_each(self, sizes: Sequence[int]) -> Iterator[range]:
        """The shard's places within each of several files of these sizes, which are divided as if they were one."""
        wanted, before = self.places(sum(sizes)), 0
        for size in sizes:
            start, stop = (min(max(place - before, 0), size) for place in (wanted.start, wanted.stop))
            yield range(start, stop)
            before += size

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


def shard(text: str, environment: Mapping[str, str] = os.environ) -> Shard:
    """A shard from `2/8`, or from the variables of the launcher that `slurm` or `torchrun` names.

    Raises ValueError for anything else, and if the variables are not there or do not tell the shard.
    """
    if text == "slurm":
        return _of_slurm(environment)
    if text == "torchrun":
        own = _of_ranks(environment)
        if own is None:
            raise ValueError("torchrun: the variables RANK and WORLD_SIZE are not set; start the command by torchrun")
        return own
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip(), re.ASCII)
    if not found or not int(found[1]) < int(found[2]):
        raise ValueError(
            f"{text!r}: expected I/N with I from 0 to N-1, such as 0/4 for the first of four shards; or slurm, torchrun"
        )
    return Shard(int(found[1]), int(found[2]))


def shard_of_torchrun(environment: Mapping[str, str] = os.environ) -> Shard | None:
    """The shard of a process that torchrun or `accelerate launch` has started; None for one that is alone.

    Raises ValueError if RANK and WORLD_SIZE are those of several processes, but not set by torchrun: they may be left
    from something else, and then one shard would be too little, but if they are not, the whole corpus is too much.
    """
    own = _of_ranks(environment)
    if "TORCHELASTIC_RUN_ID" in environment:
        return own
    if own is None or own.of == 1:
        return None
    raise ValueError(
        f"RANK={own.index} and WORLD_SIZE={own.of} are set, but not by torchrun: give --shard torchrun to compute "
        f"shard {own} in this process, or --shard 0/1 for the whole corpus"
    )


def _of_ranks(environment: Mapping[str, str]) -> Shard | None:
    """The shard of RANK and WORLD_SIZE; None if they are not both set. Raises ValueError if they tell no shard."""
    if not {"RANK", "WORLD_SIZE"} <= environment.keys():
        return None
    rank, size = environment["RANK"], environment["WORLD_SIZE"]
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise ValueError(f"RANK={rank} and WORLD_SIZE={size}: expected numbers, the first from 0 to below the second")
    return Shard(int(rank), int(size))


def _of_slurm(environment: Mapping[str, str]) -> Shard:
    missing = [name for name in _SLURM if not environment.get(name, "").isdecimal()]
    if missing:
        raise ValueError(f"slurm: the variable {missing[0]} is not set; submit the command with sbatch --array")
    number, count, least, most = (int(environment[name]) for name in _SLURM)
    step = int(environment.get("SLURM_ARRAY_TASK_STEP") or 1)
    if least + (count - 1) * step != most or (number - least) % step:
        raise ValueError("slurm: the array's numbers have gaps, so that the shard is not known; give --shard I/N")
    return Shard((number - least) // step, count)
