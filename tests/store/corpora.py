"""Synthetic samples whose rows are computed from their numbers, so that any store of them can be checked."""

import numpy as np

from recycle_cli.keys import Sample, keys_of
from recycle_cli.recipe import Recipe
from recycle_cli.store import Store, encode


def recipe(dtype="float16", cuts=("2",), **changes):
    return Recipe(
        "text", {"model_type": "tiny"}, {cut: f"digest-{cut}" for cut in cuts}, "tok", 16, "plain", dtype, changes
    )


class Corpus:
    """Samples 0, 1, 2, ... whose rows are computed from their numbers."""

    shape = (8,)

    def __init__(self, dtype="float16", cuts=("2",), shape=(8,), longest=9):
        self.dtype, self.cuts, self.shape, self.longest = dtype, tuple(cuts), tuple(shape), longest
        self.recipe = recipe(dtype, cuts)

    def keys(self, numbers):
        return keys_of([Sample(str(number), {"text": f"sample {number}"}) for number in numbers])

    def length(self, number):
        return 1 + number * 977 % self.longest

    def rows(self, number, cut):
        generator = np.random.default_rng([number, sum(cut.encode())])
        return generator.standard_normal((self.length(number), *self.shape)).astype(np.float32)

    def encoded(self, number, cut):
        return encode(self.rows(number, cut), self.dtype)

    def append(self, writer, numbers):
        lengths = np.array([self.length(number) for number in numbers])
        rows = {
            cut: encode(np.concatenate([self.rows(number, cut) for number in numbers]), self.dtype) for cut in self.cuts
        }
        writer.append(*self.keys(numbers), lengths, rows)

    def store(self, path, numbers=range(0), batch=7, **options):
        store = Store.create_or_open(str(path), self.recipe, {"model": "tiny"})
        with store.writer(**options) as writer:
            for start in range(0, len(numbers), batch):
                self.append(writer, numbers[start : start + batch])
        store.refresh()
        return store

    def check(self, store, numbers):
        """Assert that the store holds every one of these samples with its rows."""
        positions = store.lookup(*self.keys(numbers))
        assert (positions >= 0).all()
        for cut in self.cuts:
            for number, position in zip(numbers, positions.tolist(), strict=True):
                np.testing.assert_array_equal(store.read(cut, position), self.encoded(number, cut).values)
