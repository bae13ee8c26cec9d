"""What a prediction costs for texts that a store holds, by a ladder and by the whole model, in turns.

    python experiments/predict_hits.py TEST STORE FULL_RUN LADDER_RUN --limit 600

Scores the same records with each RUN as `recycle predict` does, the ladder's with the store, which must hold them all;
processor seconds of reading, tokenising, computing and writing, without loading. Prints the medians and their ratio.
"""

import argparse
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from recycle_cli.reports import Bar
from recycle_cli.scorer import Scorer, open_scorer
from recycle_cli.settings import CorpusSettings, ModelSettings, PredictSettings
from recycle_cli.tasks import read_corpus
from recycle_cli.verbs.predict import score


def seconds(scorer: Scorer, corpus: CorpusSettings, output: str) -> tuple[float, int]:
    """Processor seconds of scoring the corpus, and how many of its samples the store holds."""
    (run,) = scorer.runs.values()
    records = read_corpus(corpus, run.task, lambda: scorer.preprocessor)
    since = time.process_time()
    done = score(scorer, records, output, Bar())
    return time.process_time() - since, done.hits


def main() -> None:
    """Open both RUNs, score in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("corpus", "store", "full", "ladder"):
        parser.add_argument(name)
    parser.add_argument("--limit", type=int, default=600)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, help="as in `recycle predict`")
    options = parser.parse_args()
    settings = PredictSettings(parity_check=False, batch_tokens=options.batch_tokens)
    scorers = {
        "the whole model": open_scorer(options.full, None, ModelSettings(), settings),
        "the ladder, hits": open_scorer(options.ladder, options.store, ModelSettings(), settings),
    }
    corpus = CorpusSettings((options.corpus,), limit=options.limit)
    found: dict[str, list[float]] = {name: [] for name in scorers}
    with TemporaryDirectory() as place:
        for _ in range(options.repetitions):
            for name, scorer in scorers.items():
                spent, hits = seconds(scorer, corpus, str(Path(place, "p.jsonl")))
                found[name].append(spent)
    whole, ladder = found.values()
    for name, each in found.items():
        print(f"{name:20}{median(each):8.2f} processor seconds ({min(each):.2f} to {max(each):.2f})")
    ratios = list(map(float.__truediv__, whole, ladder))
    print(f"{median(ratios):.1f} times as fast ({min(ratios):.1f} to {max(ratios):.1f}); hits {hits}")


if __name__ == "__main__":
    main()
