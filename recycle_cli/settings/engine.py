"""The options of the engine that runs a precompute: this process, or the workers of a Ray cluster."""

from dataclasses import dataclass
from typing import Literal

from recycle_cli.errors import UsageError
from recycle_cli.settings.option import option


@dataclass(frozen=True)
class EngineSettings:
    """Where a precompute runs."""

    engine: Literal["process", "ray"] = option(
        "process",
        "Compute in this process (process), or let workers on a Ray cluster compute shards of the corpus (ray).",
        "Data",
    )
    address: str | None = option(
        None,
        "Ray cluster to join, such as auto or HOST:6379; by default RAY_ADDRESS, or a cluster made for the command on "
        "this machine.",
        "Data",
    )
    workers: int | None = option(
        None,
        "Let so many Ray workers compute, which divide the CPUs among themselves; by default one a GPU if there are "
        "any and --device is not cpu, else one a CPU.",
        "Data",
        minimum=1,
    )

    def __post_init__(self) -> None:
        given = {"--address": self.address, "--workers": self.workers}
        for name, value in given.items():
            if value is not None and self.engine != "ray":
                raise UsageError(f"{name} {value}: only --engine ray has workers on a cluster; give both, or neither")
