"""Rows behind blocks that a training has trained itself: stores of its own, in the folder of its checkpoint."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recycle_cli.batches import Indices, StoredRows
from recycle_cli.errors import RecycleError, StorageError
from recycle_cli.keys import Bytes16
from recycle_cli.models import SplitModel
from recycle_cli.models.identity import weights_digest
from recycle_cli.recipe import Recipe
from recycle_cli.runs.beginning import SCRATCH
from recycle_cli.runs.folder import CHECKPOINT
from recycle_cli.store import SegmentWriter, Store
from recycle_cli.store.layout import SCRATCH as DRAFTS
from recycle_cli.store.liveness import remove_dead, writers
from recycle_cli.trunk import Keys
from recycle_cli.trunk.rows import rows_of


class Contents:
    """The samples of a training and of its evaluation, equal ones once. `parts`: keys and digests of each."""

    def __init__(self, parts: Sequence[Keys]) -> None:
        keys = np.concatenate([keys for keys, _ in parts])
        digests = np.concatenate([digests for _, digests in parts])
        _, first, inverse = np.unique(keys.view("V16").reshape(-1), return_index=True, return_inverse=True)
        self.keys: Bytes16 = keys[first]
        self.digests: Bytes16 = digests[first]
        bounds = np.cumsum([len(keys) for keys, _ in parts])[:-1]
        self.places: list[Indices] = np.split(inverse.reshape(-1).astype(np.int64), bounds)

    def __len__(self) -> int:
        return len(self.keys)


class Scratch:
    """Stores in a training's checkpoint folder, each of one cut, named by the fingerprints of their recipes.

    folder  where the RUN is trained
    parent  the fingerprint of the store that the training began with; None without one
    """

    def __init__(self, folder: Path, split: SplitModel, contents: Contents, dtype: str, parent: str | None) -> None:
        self.folder = folder / CHECKPOINT / SCRATCH
        self.dtype = dtype
        self._split, self._contents, self._parent = split, contents, parent

    def rows(self, lengths: Sequence[Indices]) -> int:
        """Rows of all samples, equal ones once; `lengths`: those of each sample of the training and the evaluation."""
        own = np.zeros(len(self._contents), dtype=np.int64)
        for places, counts in zip(self._contents.places, lengths, strict=True):
            own[places] = counts
        return int(own.sum())

    def recipe(self, cut: str, run: str) -> Recipe:
        """The recipe of the rows at a cut: it has the digest of all that lies before it, as it has been trained.

        run  what tells the training from all others
        """
        own = {id(one) for _, one in (*self._split.head_parameters(cut), *self._split.head_buffers(cut))}
        model = self._split.model
        tensors = [(name, one) for name, one in (*model.named_parameters(), *model.named_buffers())]
        before = [(name, one.detach()) for name, one in tensors if id(one) not in own and one.is_floating_point()]
        extra = {**self._split.recipe.extra, "run": run, "parent": self._parent}
        return replace(self._split.recipe, cuts={cut: weights_digest(before)}, dtype=self.dtype, extra=extra)

    def path(self, recipe: Recipe) -> Path:
        """Where the store of a recipe lies."""
        return self.folder / recipe.fingerprint

    def open(self, recipe: Recipe) -> Store | None:
        """The store of a recipe, if it holds every sample and none of them is damaged as far as opening tells."""
        try:
            store = Store.open(str(self.path(recipe)), recipe)
            complete = bool((store.lookup(self._contents.keys, self._contents.digests) >= 0).all())
        except RecycleError:
            return None
        return store if complete else None

    def reading(self, store: Store, part: int) -> StoredRows:
        """The rows of a complete store. `part`: 0 for the samples of the training, 1 for those of the evaluation."""
        (cut,) = store.recipe.cuts
        positions = store.lookup(self._contents.keys, self._contents.digests)[self._contents.places[part]]
        return StoredRows.of(store, cut, positions)

    def begin(self, recipe: Recipe) -> "NewRows":
        """Write the rows of a cut as they come; what is there already stays, but for what a killed process has left
        unfinished, which would take room."""
        drafts = self.path(recipe) / DRAFTS
        for one in writers(drafts) if drafts.is_dir() else ():
            remove_dead(drafts, one.name)
        store = Store.create_or_open(str(self.path(recipe)), recipe, {"model": "trained"})
        return NewRows(store, self._contents)

    def keep_only(self, recipes: Sequence[Recipe]) -> None:
        """Remove the stores of all other recipes."""
        kept = {recipe.fingerprint for recipe in recipes}
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def leave(self, to: Path) -> None:
        """Move what is left of the stores into a folder of the RUN."""
        if self.folder.is_dir() and any(self.folder.iterdir()):
            shutil.rmtree(to, ignore_errors=True)
            self.folder.rename(to)


class NewRows:
    """Rows at a new cut, on their way into a store of their own."""

    def __init__(self, store: Store, contents: Contents) -> None:
        self.store, self._contents = store, contents
        (self.cut,) = store.recipe.cuts
        self._lacking = store.lookup(contents.keys, contents.digests) < 0
        self._stack = ExitStack()
        self._writer: SegmentWriter = self._stack.enter_context(store.writer())

    @property
    def lacking(self) -> npt.NDArray[np.bool_]:
        """Which samples (n,) are not written yet."""
        return self._lacking

    def add(self, part: int, members: Indices, rows: Tensor, lengths: Tensor) -> None:
        """Write the rows (B, L, *shape) of those samples that are not there. Raises StorageError, and DataError for a
        number that the dtype cannot hold."""
        places = self._contents.places[part][members]
        _, first = np.unique(places, return_index=True)
        fresh = np.sort(first[self._lacking[places[first]]])
        if not len(fresh):
            return
        chosen = torch.from_numpy(fresh).to(rows.device)
        counts = lengths.cpu().numpy().astype(np.int64)[fresh]
        encoded = rows_of(rows[chosen], counts, self.store.recipe.dtype)
        places = places[fresh]
        self._writer.append(self._contents.keys[places], self._contents.digests[places], counts, {self.cut: encoded})
        self._lacking[places] = False

    def seal(self) -> None:
        """Make all that was added durable and visible."""
        self._writer.seal()

    def abandon(self) -> None:
        """Stop writing, whatever becomes of what was added."""
        with suppress(StorageError):
            self.close()

    def close(self) -> None:
        """Seal what was added, and stop writing."""
        self._stack.close()
