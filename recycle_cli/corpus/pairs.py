"""Records that are a pair of texts, such as a question and its answer, each a sample of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from recycle_cli.corpus.columns import PAIR_COLUMNS, Columns, listing, only, resolve_common
from recycle_cli.corpus.records import Record
from recycle_cli.corpus.texts import TextForm, text_of
from recycle_cli.errors import DataError, UsageError
from recycle_cli.keys import Sample

PARTNERS = (*PAIR_COLUMNS, ("question", "answer"), ("query", "passage"), ("query", "answer"), ("anchor", "positive"))
SCORES = ("score", "similarity", "similarity_score")


@dataclass(frozen=True)
class PartnersForm(TextForm):
    """A pair of texts, which are two samples with the field `text`. `scored`: a column holds their similarity."""

    scored: bool = False

    def resolve(self, named: Columns, schema: Mapping[str, bool], corpus: str, *, labelled: bool) -> Columns:
        """Find the columns that are not named: the two texts are the only pair of PARTNERS, the score, if pairs are
        scored, the only one of SCORES."""
        if not self.scored and (named.label is not None or named.labels):
            given = named.label or ", ".join(named.labels)
            raise UsageError(
                f"--label-column {given}: pairs are learnt without scores; add --pair-loss cosent or cosine-mse"
            )
        if self.scored and named.label is None and not named.labels:
            named = replace(named, label=only(SCORES, list(schema)))
        resolved, _ = resolve_common(named, schema, corpus, labelled=labelled and self.scored)
        resolved = resolved if self.scored else replace(resolved, label=None)
        wanted = (named.text, named.text_pair)
        fitting = [
            pair for pair in PARTNERS if all(asked in (None, own) for asked, own in zip(wanted, pair, strict=True))
        ]
        there = [pair for pair in fitting if set(pair) <= schema.keys()]
        if len(there) == 1:
            return replace(resolved, text=there[0][0], text_pair=there[0][1])
        if None in wanted:
            raise DataError(
                f"{corpus}: which columns hold the two texts of a pair? Name them with --text-column and "
                f"--text-pair-column; {listing(schema)}"
            )
        return resolved

    def samples(self, record: Record, columns: Columns, identity: str) -> tuple[Sample, ...]:
        """Two samples."""
        assert columns.text is not None
        assert columns.text_pair is not None
        texts = [text_of(record.values, column) for column in (columns.text, columns.text_pair)]
        return tuple(Sample(identity, {"text": text}) for text in texts)
