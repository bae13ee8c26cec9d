"""Whether the store holds what a training needs, and what to do where it does not."""

import json
import shlex
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recycle_cli.errors import MismatchError, MissingError, UsageError
from recycle_cli.intake import Intake
from recycle_cli.models import SplitModel, views_of
from recycle_cli.precompute import Tally, fill
from recycle_cli.recipe import Recipe
from recycle_cli.reports import bar, say
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings, ViewSettings
from recycle_cli.store import Store
from recycle_cli.training.labelled import Labelled, take_all


def expect(store: Store, recipe: Recipe, cut: str | None = None) -> None:
    """Raise MismatchError, naming the field, where the store has another recipe; `cut` compares that cut alone."""
    held = store.recipe if cut is None else store.recipe.at(cut)
    if difference := held.difference(recipe):
        raise MismatchError(
            f"{store.path}: made with another recipe ({difference}); use what it was made with, or another store"
        )


ON_MISSING = ("fail", "compute", "skip")


def covered(
    corpus: CorpusSettings,
    data: Sequence[Labelled],
    store: Store,
    halves: SplitModel,
    model: ModelSettings,
    on_missing: str,
    views: ViewSettings = ViewSettings(),  # noqa: B008 - frozen
) -> list[Labelled]:
    """The samples that the store holds, with their views: all of them, or as `on_missing` says. `data`: the same
    samples with the labels of each target.

    `fail` raises MissingError with the command that would fill the store, `compute` fills it, `skip` leaves out.
    """
    if on_missing not in ON_MISSING:
        raise UsageError(f"--on-missing {on_missing} is not known; take one of {', '.join(ON_MISSING)}")
    absent = absent_from(store, data[0])
    if on_missing == "fail" and absent.any():
        raise MissingError(_message(int(absent.sum()), len(absent), corpus, store, model, views))
    if on_missing == "compute" and absent.any():
        _compute(corpus, store, halves, model, views)
        absent = absent_from(store, data[0])
    if not absent.any():
        return list(data)
    say(f"skipping {int(absent.sum()):,} of {len(absent):,} samples, which {store.path} does not hold")
    if absent.all():
        raise MissingError(f"{store.path} holds none of the samples; precompute it over this corpus")
    return take_all(data, np.flatnonzero(~absent))


def absent_from(store: Store, data: Labelled) -> npt.NDArray[np.bool_]:
    """Which samples (n,) the store lacks, or lacks a view of."""
    absent: npt.NDArray[np.bool_] = store.lookup(data.keys, data.digests) < 0
    for keys, digests in data.views:
        absent |= store.lookup(keys, digests) < 0
    return absent


def _compute(
    corpus: CorpusSettings, store: Store, halves: SplitModel, model: ModelSettings, views: ViewSettings
) -> None:
    images = store.recipe.modality == "image"
    samples = Intake(corpus, labelled=True, images=images, views=views_of(views, images=images))
    with bar("precompute", samples.total) as progress:
        fill(store, samples, halves, model, PrecomputeSettings(), Tally(), progress)
    samples.tell()


def _message(
    absent: int, total: int, corpus: CorpusSettings, store: Store, model: ModelSettings, views: ViewSettings
) -> str:
    return (
        f"{store.path} lacks {absent:,} of {total:,} samples; fill it with `{_command(corpus, store, model, views)}`, "
        "or use --on-missing compute|skip"
    )


def _command(corpus: CorpusSettings, store: Store, model: ModelSettings, views: ViewSettings) -> str:
    """The precompute that would fill the store, as a shell takes it."""
    options: list[tuple[str, object]] = [
        ("--model", model.name),
        ("--revision", model.revision),
        *(("--cut", cut) for cut in store.recipe.cuts),
        ("--max-length", store.recipe.max_length),
        ("--dtype", store.recipe.dtype),
        ("--precision", None if store.recipe.precision == "float32" else store.recipe.precision),
        ("--text-column", corpus.text_column),
        ("--text-pair-column", corpus.text_pair_column),
        ("--image-column", corpus.image_column),
        ("--weights", store.provenance.get("given_weights")),
        *_transform_options(store),
        ("--views", views.views or None),
        ("--augment", views.augment if views.views else None),
        ("--limit", corpus.limit),
        ("--on-error", None if corpus.on_error == "fail" else corpus.on_error),
    ]
    words = ["recycle", "precompute", *corpus.source, store.path]
    words += [word for name, value in options if value is not None for word in (name, str(value))]
    return shlex.join(words + (["--trust-remote-code"] if model.trust_remote_code else []))


def _transform_options(store: Store) -> list[tuple[str, object]]:
    """The options that give images the transform that the store's had."""
    transform = json.loads(store.provenance.get("transform", "{}"))
    named = {name: transform[name] for name in ("resize", "crop", "mean", "std") if transform.get(name)}
    return [(f"--{name}", ",".join(f"{number:g}" for number in numbers)) for name, numbers in named.items()]
