"""Missing activations: find the samples of a training that a store lacks, then fail, compute or skip them."""

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from recycle_cli.corpus import STDIN, Corpus, Views, is_pipe
from recycle_cli.errors import MismatchError, MissingError, UsageError
from recycle_cli.keys import Bytes16
from recycle_cli.models import SplitModel
from recycle_cli.recipe import Recipe
from recycle_cli.reports import say
from recycle_cli.settings import (
    ImageSettings,
    ModelSettings,
    OnMissing,
    PrecomputeSettings,
    SampleSettings,
    ViewSettings,
    words_of,
)
from recycle_cli.settings.option import options_of
from recycle_cli.store import Store
from recycle_cli.trunk.fill import fill

Mask = npt.NDArray[np.bool_]

Keys = tuple[Bytes16, Bytes16]
"""Keys and digests (n, 16) of some samples."""

ON_MISSING: tuple[str, ...] = get_args(OnMissing)


def expect(store: Store, recipe: Recipe, model: str, cut: str | None = None) -> None:
    """Raise MismatchError, naming the model or the field, if the store has another recipe.

    model  the name of the model that has the recipe
    cut    the only cut to compare; None for all
    """
    held = store.recipe if cut is None else store.recipe.at(cut)
    if held.poolings and not recipe.poolings:
        raise MismatchError(
            f"{store.path} holds pooled vectors ({', '.join(held.poolings)}) and no rows: only a head trained with "
            "--head pooled reads them; for any other, precompute a store without --pool"
        )
    made_with = store.provenance.get("model")
    # A store knows a model's folder by its whole path.
    asked_with = made_with if str(Path(model).resolve()) == made_with else model
    if refusal := held.refusal(recipe, made_with, asked_with):
        raise MismatchError(f"{store.path}: {refusal}")


@dataclass(frozen=True)
class Needed:
    """A corpus whose activations a training needs, and the settings by which they are computed.

    views    the augmented views that the training asks for
    samples  which samples a record gives
    """

    corpus: Corpus
    model: ModelSettings
    views: ViewSettings = ViewSettings()  # noqa: RUF009 - frozen
    samples: SampleSettings = SampleSettings()  # noqa: RUF009 - frozen


def absent_from(store: Store, contents: Iterable[Keys]) -> Mask:
    """A mask (n,) of the samples that the store lacks. `contents`: the keys of the samples, and of each of their views,
    which it must hold too."""
    found = [store.lookup(keys, digests) < 0 for keys, digests in contents]
    return np.logical_or.reduce(found)


def held_by(
    store: Store, contents: Sequence[Keys], split: SplitModel, needed: Needed, on_missing: str, make_views: Views = ()
) -> Mask:
    """A mask (n,) of the samples to train on: those that the store holds with their views.

    `fail` raises MissingError with the command that would fill the store, `compute` fills it, `skip` leaves out those
    that it lacks.
    """
    if on_missing not in ON_MISSING:
        raise UsageError(f"--on-missing {on_missing} is not known; take one of {', '.join(ON_MISSING)}")
    absent = absent_from(store, contents)
    if on_missing == "fail" and absent.any():
        raise MissingError(
            f"{store.path} lacks {int(absent.sum()):,} of {len(absent):,} samples; fill it with "
            f"{_command(store, needed)}, or use --on-missing compute|skip"
        )
    if on_missing == "compute" and absent.any():
        _compute(store, split, needed, make_views)
        absent = absent_from(store, contents)
    if absent.any():
        say(f"skipping {int(absent.sum()):,} of {len(absent):,} samples, which {store.path} does not hold")
    if absent.all():
        raise MissingError(f"{store.path} holds none of the samples; precompute it over this corpus")
    return ~absent


def _compute(store: Store, split: SplitModel, needed: Needed, views: Views) -> None:
    """Fill the store over the corpus."""
    records, settings = needed.corpus, _precompute_settings(store, needed)
    with records.progress("precompute", views) as progress:
        fill(store, records.samples(views), split, settings, progress, records.reject)
    records.failures.tell()


def _command(store: Store, needed: Needed) -> str:
    """The command line of the precompute that would fill the store. Records that came through a pipe come through
    stdin there: the pipe may have a name of this process alone."""
    corpus = needed.corpus.resolved
    asked = words_of(corpus, _model_settings(store, needed), _precompute_settings(store, needed))
    sources = list(dict.fromkeys(STDIN if is_pipe(source) else source for source in corpus.source))
    command = f"`{shlex.join(['recycle', 'precompute', *sources, store.path, *asked])}`"
    return f"{command}, with the same records on stdin" if STDIN in sources else command


def _model_settings(store: Store, needed: Needed) -> ModelSettings:
    """The settings by which a precompute opens the model as the store's model was, with its transform of images."""
    transform = json.loads(store.provenance.get("transform", "{}"))
    as_stored: dict[str, Any] = {
        name: tuple(transform[name]) for name in options_of(ImageSettings) if transform.get(name)
    }
    images = ImageSettings(weights=store.provenance.get("given_weights"), **as_stored)
    held: dict[str, Any] = {"max_length": store.recipe.max_length, "precision": store.recipe.precision}
    return replace(needed.model, images=images, **held)


def _precompute_settings(store: Store, needed: Needed) -> PrecomputeSettings:
    """The settings of a precompute that adds to the store, compressed as it is."""
    recipe = store.recipe
    held: dict[str, Any] = {"cuts": tuple(recipe.cuts), "dtype": recipe.dtype, "codec": store.codec}
    return PrecomputeSettings(**held, pool=recipe.poolings, views=needed.views, samples=needed.samples)
