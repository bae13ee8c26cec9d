"""The model and the store of a worker, and the filling of shards."""

from dataclasses import dataclass, replace

import torch

from recycle_cli.corpus import Failure
from recycle_cli.errors import MismatchError, StoreError
from recycle_cli.models import NamedModel
from recycle_cli.recipe import Recipe
from recycle_cli.reports import Bar
from recycle_cli.runtime.devices import device_of
from recycle_cli.settings import CorpusSettings, Shard
from recycle_cli.store import Store
from recycle_cli.tasks import read_samples
from recycle_cli.verbs.on_ray.messages import Done, Work
from recycle_cli.verbs.precompute import Filling, open_filling


@dataclass(frozen=True)
class ShardFilling:
    """A trunk and the store, opened once for all shards of a worker."""

    corpus: CorpusSettings
    named: NamedModel
    filling: Filling

    def fill(self, shard: Shard, progress: Bar) -> Done:
        """Add what the store lacks of a shard; what an earlier worker has sealed of it is there already."""
        self.filling.store.refresh()
        failures: list[Failure] = []
        corpus = replace(self.corpus, shard=shard, failures=None)
        records = read_samples(corpus, self.filling.settings.samples, self.named, failures.append)
        with records.advancing(progress, self.filling.views) as advanced:
            report = self.filling.fill(records, advanced)
        return Done(report, tuple(failures))


def open_shard_filling(work: Work) -> ShardFilling:
    """Raises MismatchError if the trunk here is not the driver's, and StoreError if the store here is another."""
    torch.set_num_threads(work.threads)
    _check_store(work)
    device, named = device_of(work.model.device), NamedModel(work.model)
    filling = open_filling(work.store, named, work.settings)
    here = filling.split.recipe.computed_in(work.model.precision)
    if difference := Recipe.from_json(work.recipe).difference(here):
        raise MismatchError(
            f"the model {named.name} is not the one where the command was given "
            f"({difference.replace('in the store', 'there').replace('asked for', 'here')}); "
            "put the same files on every node"
        )
    filling.split.model.to(device)
    return ShardFilling(work.corpus, named, filling)


def _check_store(work: Work) -> None:
    remedy = "a store in a folder must be the same folder on every node; else use a bucket, such as s3://"
    try:
        found = Store.open(work.store)
    except StoreError as error:
        raise type(error)(f"{error} (the driver has opened it: {remedy})") from None
    if found.provenance != dict(work.provenance):
        raise MismatchError(f"{work.store}: another store than the one that the driver has opened; {remedy}")
