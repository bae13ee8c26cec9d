"""Compare what the formats of stored rows leave of a model's output, of their bytes and of the speed of reading.

    python experiments/row_formats.py WORK CORPUS [--model NAME] [--cut 50%] [--limit 400] [--max-length 256]

WORK is a folder for the stores, one in each format, that `recycle precompute` makes of CORPUS there. Rows come back
through `StoredRows` in batches of 32 and then pass the remaining blocks, frozen. For each format the table has

    bytes       of the store, as a share of float16's
    row         relative error (L2) of the rows
    after       the same of what the remaining blocks make of them
    cosine      of the mean of a text's last rows with the same from float32: mean, and the least
    read        processor time to read all texts once in random order and widen them to float32, as a multiple of
                float16's: the median of the repeats, in which the formats take turns; the page cache holds everything
    step        the same of a training step: reading and widening a batch, and its pass through the head and back
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from recycle_cli import precompute
from recycle_cli.batches import StoredRows, widened
from recycle_cli.models import NamedModel, SplitModel
from recycle_cli.recipe import DTYPES
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings
from recycle_cli.store import Store

BATCH = 32
Texts = list[torch.Tensor]


def filled(work: Path, corpus: CorpusSettings, model: ModelSettings, cut: str, dtype: str) -> StoredRows:
    """The rows of a store of the corpus in one format, in the order of their keys."""
    path = str(work / f"{dtype}.zarr")
    precompute(corpus, path, model, PrecomputeSettings(cuts=(cut,), dtype=dtype))
    store = Store.open(path)
    positions = store.positions()
    keys = [key.tobytes() for key in store.keys(positions)]
    return StoredRows.of(store, next(iter(store.recipe.cuts)), positions[np.argsort(keys)])


def outputs(rows: StoredRows, rest: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> tuple[Texts, Texts]:
    """The rows of each text, and what the remaining blocks make of them."""
    before, after = [], []
    for start in range(0, len(rows.positions), BATCH):
        batch = rows.load(np.arange(start, min(start + BATCH, len(rows.positions))))
        wide, lengths = widened(batch), batch["lengths"]
        for kept, values in ((before, wide), (after, rest(wide, lengths))):
            kept += [own[:length] for own, length in zip(values, lengths.tolist(), strict=True)]
    return before, after


def moved(found: Texts, expected: Texts) -> float:
    """Relative L2 error over all texts."""
    one, other = torch.cat(found), torch.cat(expected)
    return float((one - other).norm() / other.norm())


def reading(rows: StoredRows, repeat: int) -> float:
    """Processor seconds of reading all texts."""
    order = np.random.default_rng(repeat).permutation(len(rows.positions))
    began = time.process_time()
    for start in range(0, len(order), BATCH):
        widened(rows.load(order[start : start + BATCH]))
    return time.process_time() - began


def step(rows: StoredRows, repeat: int, split: SplitModel) -> float:
    """Processor seconds of a step on one batch, without the optimizer."""
    members = np.random.default_rng(repeat).permutation(len(rows.positions))[:BATCH]
    torch.manual_seed(repeat)
    began = time.process_time()
    batch = rows.load(members)
    split.head_from(split.cuts[0])(widened(batch), batch["lengths"]).square().sum().backward()
    return time.process_time() - began


def as_multiples(times: dict[str, list[float]], dtype: str) -> float:
    """The median of the repeats, each as a multiple of float16's; the first warms up."""
    pairs = zip(times[dtype][1:], times["float16"][1:], strict=True)
    return statistics.median(one / other for one, other in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("corpus")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--cut", default="50%")
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    corpus = replace(CorpusSettings((given.corpus,)), limit=given.limit)
    model = replace(ModelSettings(given.model), max_length=given.max_length)
    rows = {dtype: filled(given.work, corpus, model, given.cut, dtype) for dtype in DTYPES}
    split = NamedModel(model).open().split((given.cut, "100%"), "float32")
    rest = split.between(split.cuts[0], split.cuts[1])
    before, after = outputs(rows["float32"], rest)
    pooled = torch.stack([own.mean(dim=0) for own in after])
    reads, steps = ({dtype: [] for dtype in DTYPES} for _ in range(2))
    split.freeze(split.cuts[0])
    split.model.train()
    for repeat in range(given.repeats + 1):
        for dtype, own in rows.items():
            reads[dtype].append(reading(own, repeat))
            steps[dtype].append(step(own, repeat, split))
    split.model.eval()
    print("| format | bytes | row | after | cosine, mean | least | read | step |\n|---|---|---|---|---|---|---|---|")
    for dtype, own in rows.items():
        stored, made = outputs(own, rest)
        cosine = torch.cosine_similarity(torch.stack([one.mean(dim=0) for one in made]), pooled)
        share = own.store.bytes / rows["float16"].store.bytes
        print(
            f"| {dtype} | {share:.3f} | {moved(stored, before):.4f} | {moved(made, after):.4f} "
            f"| {cosine.mean():.5f} | {cosine.min():.4f} | {as_multiples(reads, dtype):.2f} "
            f"| {as_multiples(steps, dtype):.3f} |"
        )


if __name__ == "__main__":
    main()
