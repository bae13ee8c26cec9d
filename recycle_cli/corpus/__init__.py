"""Files to samples: one streaming, restartable view over whatever holds the records."""

from recycle_cli.corpus.columns import Columns
from recycle_cli.corpus.samples import Corpus, Failure, open_corpus

__all__ = ["Columns", "Corpus", "Failure", "open_corpus"]
