"""What a training runs with: the store, the model in two halves, the cut, the device."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from recycle_cli.batches import RowSource, inputs_source, source_at
from recycle_cli.corpus import Views
from recycle_cli.errors import MismatchError, RecycleError, UsageError
from recycle_cli.models import AnyLoaded, NamedModel, Network, SplitModel, TaskLayer
from recycle_cli.models.eval_mode import freeze
from recycle_cli.reports import say
from recycle_cli.runtime.devices import device_of
from recycle_cli.settings import Job, TrainingSettings
from recycle_cli.store import Store
from recycle_cli.training.labelled_data import LabelledData
from recycle_cli.trunk import Reused, expect


class Held(NamedTuple):
    """A store that must hold the samples of a training, the cut that is read from it, and the model that fills it."""

    store: Store
    cut: str
    model: NamedModel
    split: SplitModel


@dataclass(frozen=True)
class Setup:
    """A model split at the store's cuts or, without a store, at the cut that was asked for.

    cut         where the head begins; of one that reads several states those cuts, with commas between them
    provenance  fields by which the model is found again
    network     the model before it was split
    """

    model: NamedModel
    loaded: AnyLoaded
    split: SplitModel
    cut: str
    store: Store | None
    provenance: Mapping[str, str] = field(default_factory=dict)
    network: Network | None = None

    @property
    def reused(self) -> Reused | None:
        """The other model whose rows this one reuses."""
        return cast(Reused | None, self.model.reused)

    @property
    def held(self) -> Held | None:
        """Where the samples must be held: in the store, or in that of the rows which are reused."""
        if self.store is not None:
            return Held(self.store, self.cut, self.model, self.split)
        one = self.reused
        return None if one is None or one.store is None else Held(one.store, one.cut, one.model, one.split)

    @property
    def cuts(self) -> tuple[str, ...]:
        """The cuts whose rows the head reads; `cut` names them all."""
        return tuple(self.cut.split(","))


def set_up(job: Job, store: Store | None, model: NamedModel, layers: Iterable[tuple[TaskLayer, int]]) -> list[Setup]:
    """A model for each head, which ends with its layer, made from its seed; the trunk is in memory once.

    Raises MismatchError if the store was made with another recipe or cut, UsageError if the cut is not clear.
    """
    return frozen(_set_up(job, store, model, layer, seed) for layer, seed in layers)


def set_up_states(job: Job, store: Store | None, model: NamedModel, heads: int, *, pooled: bool) -> list[Setup]:
    """The model whose states ladders or pooled heads read, the same for all of them, with nothing of it in training.

    pooled  whether they take a store of pooled vectors, too

    Raises MismatchError if the store was made with another recipe, or lacks a cut; UsageError if no cut is named.
    """
    if store is None and job.cut is None:
        raise UsageError("without a STORE, name the --cut to train from, such as every:2 for every second state")
    network = model.open()
    if store is None:
        split = network.stored((str(job.cut),), "float32")
        cuts = split.cuts
    else:
        split = network.stored(tuple(store.recipe.cuts), store.recipe.dtype, store.recipe.poolings if pooled else ())
        expect(store, split.recipe.computed_in(store.recipe.precision), model.name)
        cuts = split.cuts if job.cut is None else _those(job.cut, network, store)
    if not pooled and len(cuts) == 1:
        say(f"a ladder is meant for several cuts, and reads {cuts[0]} alone here; precompute --cut every:2 keeps more")
    freeze(split.model, split.model.parameters(), split.model.modules())
    split.model.to(device_of(model.settings.device))
    return [Setup(model, network.loaded, split, ",".join(cuts), store, network.provenance)] * heads


def _those(cut: str, network: Network, store: Store) -> tuple[str, ...]:
    """The cuts of a store that a user's words name."""
    held = tuple(store.recipe.cuts)
    named = network.stored((cut,), store.recipe.dtype).cuts
    if absent := [one for one in named if one not in held]:
        raise MismatchError(
            f"{store.path} holds the cut {', '.join(held)}, not {', '.join(absent)}; name others with --cut, or "
            "precompute a store that has them"
        )
    return named


def frozen(setups: Iterable[Setup]) -> list[Setup]:
    """Setups of one and the same model, made one by one: each trunk frozen, and in memory once."""
    done: list[Setup] = []
    for setup in setups:
        if done:
            _share_trunk(done[0], setup)
        setup.split.freeze(setup.cut)
        done.append(setup)
    return done


def _set_up(job: Job, store: Store | None, model: NamedModel, layer: TaskLayer, seed: int) -> Setup:
    dtype = "float32"
    if store is None:
        if job.cut is None:
            raise UsageError("without a STORE, name the --cut to train from (0 trains the whole model)")
        cuts: tuple[str, ...] = (job.cut,)
    else:
        cuts, dtype = tuple(store.recipe.cuts), store.recipe.dtype
    network = model.open(layer, seed=seed)
    try:
        split = network.split(cuts, dtype) if store is None else network.stored(cuts, dtype)
    except RecycleError as error:
        if store is None or not job.model_named:
            raise
        raise MismatchError(
            f"{store.path}: made with the model {store.provenance.get('model')} at the cut {', '.join(cuts)}, at which "
            f"{model.name} cannot be cut; leave out --model, or precompute a store with it"
        ) from error
    if store is not None:
        expect(store, split.recipe.computed_in(store.recipe.precision), model.name)
    split.model.to(device_of(model.settings.device))
    return Setup(model, network.loaded, split, _chosen(job.cut, network, split, store), store, network=network)


def _share_trunk(first: Setup, other: Setup) -> None:
    """Let `other` use the first one's tensors for all that its head does not train."""
    own = {name for name, _ in other.split.head_parameters(other.cut)}
    tensors = dict(first.split.model.named_parameters())
    for name, parameter in other.split.model.named_parameters():
        if name not in own:
            parameter.data = tensors[name].data


def _chosen(cut: str | None, network: Network, split: SplitModel, store: Store | None) -> str:
    where = store.path if store is not None else "the model"
    if cut is None:
        if len(split.cuts) > 1:
            raise UsageError(
                f"{where} holds the cuts {', '.join(split.cuts)}; choose one with --cut, "
                "or read several with --head ladder or pooled"
            )
        return split.cuts[0]
    found = network.resolve(cut, split)
    if found not in split.cuts:
        raise MismatchError(
            f"{where} holds the cut {', '.join(split.cuts)}, not {found}; name that, or precompute a store at {found}"
        )
    return found


def source_of(setup: Setup, data: LabelledData, settings: TrainingSettings, views: Views = ()) -> RowSource:
    """Where batches of the samples come from; `views` augment images that are decoded anew in each epoch."""
    store = setup.store
    if store is None:
        return inputs_source(setup.split.preprocessor, data.samples, views)
    kinds = [store.lookup(keys, digests) for keys, digests in data.contents]
    return source_at(store, setup.cuts, kinds, settings.memory, in_memory=settings.in_memory)
