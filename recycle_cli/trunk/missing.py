"""Missing activations: whether the store holds what a training needs, and what to do if it does not."""

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recycle_cli.corpus import Corpus, Views
from recycle_cli.errors import MismatchError, MissingError, UsageError
from recycle_cli.keys import Bytes16
from recycle_cli.models import SplitModel
from recycle_cli.recipe import Recipe
from recycle_cli.reports import say
from recycle_cli.settings import CorpusSettings, PrecomputeSettings, SampleSettings, ViewSettings
from recycle_cli.store import Store
from recycle_cli.trunk.fill import fill

Mask = npt.NDArray[np.bool_]

Keys = tuple[Bytes16, Bytes16]
"""Keys and digests (n, 16) of some samples."""

ON_MISSING = ("fail", "compute", "skip")


def expect(store: Store, recipe: Recipe, model: str, cut: str | None = None) -> None:
    """Raise MismatchError, naming the model or the field, if the store has another recipe; `cut` compares that cut
    alone. `model`: the name of the model that has the recipe."""
    held = store.recipe if cut is None else store.recipe.at(cut)
    made_with = store.provenance.get("model")
    # A store knows a model's folder by its whole path.
    asked_with = made_with if str(Path(model).resolve()) == made_with else model
    if refusal := held.refusal(recipe, made_with, asked_with):
        raise MismatchError(f"{store.path}: {refusal}")


@dataclass(frozen=True)
class Wanted:
    """A corpus whose activations a training needs, and how they would be computed: for the message and for doing it.

    model, revision, trust_remote_code  as the user would name the model
    views                               the augmented views that the training asks for
    samples                             which samples a record gives
    """

    corpus: Corpus
    model: str
    revision: str | None = None
    trust_remote_code: bool = False
    views: ViewSettings = ViewSettings()  # noqa: RUF009 - frozen
    samples: SampleSettings = SampleSettings()  # noqa: RUF009 - frozen


def absent_from(store: Store, kinds: Iterable[Keys]) -> Mask:
    """A mask (n,) of the samples that the store lacks. `contents`: the keys of the samples, and of each of their views,
    which it must hold too."""
    found = [store.lookup(keys, digests) < 0 for keys, digests in kinds]
    return np.logical_or.reduce(found)


def held_by(
    store: Store, kinds: Sequence[Keys], split: SplitModel, wanted: Wanted, on_missing: str, make_views: Views = ()
) -> Mask:
    """A mask (n,) of the samples to train on: those that the store holds with their views.

    `fail` raises MissingError with the command that would fill the store, `compute` fills it, `skip` leaves out those
    that it lacks.
    """
    if on_missing not in ON_MISSING:
        raise UsageError(f"--on-missing {on_missing} is not known; take one of {', '.join(ON_MISSING)}")
    absent = absent_from(store, kinds)
    if on_missing == "fail" and absent.any():
        raise MissingError(
            f"{store.path} lacks {int(absent.sum()):,} of {len(absent):,} samples; fill it with "
            f"`{_command(store, wanted)}`, or use --on-missing compute|skip"
        )
    if on_missing == "compute" and absent.any():
        _compute(store, split, wanted, make_views)
        absent = absent_from(store, kinds)
    if absent.any():
        say(f"skipping {int(absent.sum()):,} of {len(absent):,} samples, which {store.path} does not hold")
    if absent.all():
        raise MissingError(f"{store.path} holds none of the samples; precompute it over this corpus")
    return ~absent


def _compute(store: Store, split: SplitModel, wanted: Wanted, views: Views) -> None:
    """Fill the store over the corpus, compressed as it is."""
    records = wanted.corpus
    with records.progress("precompute", views) as progress:
        fill(store, records.samples(views), split, PrecomputeSettings(codec=store.codec), progress, records.reject)
    records.failures.tell()


def _command(store: Store, wanted: Wanted) -> str:
    """The precompute that would fill the store, as a shell takes it."""
    corpus: CorpusSettings = wanted.corpus.resolved
    views = wanted.views
    options: list[tuple[str, object]] = [
        ("--model", wanted.model),
        ("--revision", wanted.revision),
        *(("--cut", cut) for cut in store.recipe.cuts),
        ("--max-length", store.recipe.max_length),
        ("--dtype", store.recipe.dtype),
        ("--precision", None if store.recipe.precision == "float32" else store.recipe.precision),
        ("--text-column", corpus.text_column),
        ("--text-pair-column", corpus.text_pair_column),
        ("--image-column", corpus.image_column),
        ("--format", corpus.files.format),
        ("--quoting", None if corpus.files.quoting == "standard" else corpus.files.quoting),
        ("--weights", store.provenance.get("given_weights")),
        *_transform_options(store),
        ("--task", wanted.samples.task),
        ("--stride", wanted.samples.windows.stride),
        ("--views", views.views or None),
        ("--augment", views.augment if views.views else None),
        ("--limit", corpus.limit),
        ("--on-error", None if corpus.on_error == "fail" else corpus.on_error),
    ]
    words = ["recycle", "precompute", *corpus.source, store.path]
    words += [word for name, value in options if value is not None for word in (name, str(value))]
    return shlex.join(words + (["--trust-remote-code"] if wanted.trust_remote_code else []))


def _transform_options(store: Store) -> list[tuple[str, object]]:
    """The options that give images the transform that the store's had."""
    transform = json.loads(store.provenance.get("transform", "{}"))
    named = {name: transform[name] for name in ("resize", "crop", "mean", "std") if transform.get(name)}
    return [(f"--{name}", ",".join(f"{number:g}" for number in numbers)) for name, numbers in named.items()]
