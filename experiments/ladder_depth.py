"""What a step of a ladder costs beside one of full fine-tuning as models become deeper: random weights of a BERT.

    python experiments/ladder_depth.py --blocks 12 24 --width 768

A step: forward, backward and AdamW on one batch of texts of one length. The ladder reads every second state, with its
default sizes. Processor seconds on one thread, in turns; prints the medians.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from transformers import BertConfig, BertForSequenceClassification

from recycle_cli.models import TaskLayer
from recycle_cli.models.ladder import Layout, new_ladder
from recycle_cli.settings import LadderSettings

CLASSES = ("0", "1", "2")


def stepper(model: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], float]:
    """Takes a step, and returns its processor seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> float:
        since = time.process_time()
        loss().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.process_time() - since

    return step


def measured(blocks: int, options: argparse.Namespace) -> tuple[float, float, int]:
    """Median seconds of a step of the whole model and of a ladder, and the ladder's weights."""
    texts, rows, width = options.texts, options.rows, options.width
    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        num_labels=len(CLASSES),
    )
    model = BertForSequenceClassification(config).train()
    tokens, labels = torch.randint(1000, 20000, (texts, rows)), torch.randint(0, len(CLASSES), (texts,))
    states = torch.randn(len(range(0, blocks + 1, 2)), texts, rows, width)
    lengths = torch.full((texts,), rows)
    ladder = new_ladder(TaskLayer(labels=CLASSES), Layout(((width,),) * len(states)), LadderSettings(), 0).train()
    whole = stepper(model, lambda: model(tokens, labels=labels).loss)
    small = stepper(ladder, lambda: torch.nn.functional.cross_entropy(ladder(states, lengths), labels))
    whole(), small()
    found = [(whole(), small()) for _ in range(options.repetitions)]
    return median(one for one, _ in found), median(two for _, two in found), sum(w.numel() for w in ladder.parameters())


def main() -> None:
    """Measure each depth, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs="+", default=[12, 24])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'blocks':8}{'full, s':>10}{'ladder, s':>11}{'ladder/full':>13}{'its weights':>14}")
    for blocks in options.blocks:
        full, ladder, weights = measured(blocks, options)
        print(f"{blocks:<8}{full:10.2f}{ladder:11.3f}{ladder / full:13.3f}{weights:14,}")


if __name__ == "__main__":
    main()
