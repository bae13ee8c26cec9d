"""Commands that several processes run together, as a launcher would start them."""

from pathlib import Path
from typing import Any

import torch.distributed as dist

from tests.commands import Commands, Done, Running

_stores: list[dist.TCPStore] = []


def next_start() -> int:
    """The port of what a launcher keeps for its processes to meet in: another for each start."""
    _stores.append(dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
    return _stores[-1].port


def variables(rank: int, count: int, port: int) -> dict[str, str]:
    """What a launcher sets for one of its processes."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
    own = {name: str(value) for name, value in numbers.items()}
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    return {"MASTER_ADDR": "127.0.0.1", **agent, **own}


def start_ranks(recycle: Commands, count: int, *arguments: object, cwd: Path, **env: str) -> list[Running]:
    """Start a command in so many processes."""
    port = next_start()
    return [recycle.start(*arguments, cwd=cwd, env={**variables(rank, count, port), **env}) for rank in range(count)]


def run_ranks(recycle: Commands, count: int, *arguments: object, cwd: Path) -> list[Done]:
    """The same, to their end."""
    return [one.wait() for one in start_ranks(recycle, count, *arguments, cwd=cwd)]


def trained_by(recycle: Commands, count: int, *arguments: object, cwd: Path) -> Any:
    """The report of a training by one process or by several, of which the first alone speaks."""
    if count == 1:
        return recycle.json(*arguments, cwd=cwd)
    first, *others = run_ranks(recycle, count, *arguments, "--json", cwd=cwd)
    assert first.code == 0, first.err
    for one in others:
        assert (one.code, one.out, one.err) == (0, "", ""), one
    return first.json
