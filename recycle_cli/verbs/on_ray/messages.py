"""What the driver and the workers tell each other: settings and counts, never rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recycle_cli.errors import RecycleError
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings

if TYPE_CHECKING:
    from recycle_cli.corpus import Failure
    from recycle_cli.verbs.precompute import Precomputed


@dataclass(frozen=True)
class Work:
    """What every worker is told: the same for all, and small, since Ray keeps it.

    version     that of recycle where the command was given
    recipe      the recipe of the trunk there, as JSON
    provenance  of the store as the driver sees it
    threads     that compute in a worker
    """

    corpus: CorpusSettings
    store: str
    model: ModelSettings
    settings: PrecomputeSettings
    version: str
    recipe: Mapping[str, Any]
    provenance: Mapping[str, str]
    threads: int


@dataclass(frozen=True)
class Ready:
    """A worker has opened the model and the store. `node`: Ray's id of its machine; `pid`: its process there."""

    host: str
    node: str
    pid: int


@dataclass(frozen=True)
class Done:
    """A shard is in the store: its counts, and the records that were passed over. Rows never leave the worker."""

    report: "Precomputed"
    failures: "tuple[Failure, ...]"


@dataclass(frozen=True)
class Refused:
    """What the command would have ended with in a process of its own."""

    error: RecycleError


@dataclass(frozen=True)
class Stopped:
    """The worker was asked to stop, and has sealed what it had computed."""
