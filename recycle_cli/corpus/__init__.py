"""Files to records to examples: one streaming, restartable view over whatever holds the records."""

from recycle_cli.corpus.columns import Columns
from recycle_cli.corpus.corpus import Corpus
from recycle_cli.corpus.examples import Example, Expand, Views
from recycle_cli.corpus.failures import Failure
from recycle_cli.corpus.file_kinds import text_in_file
from recycle_cli.corpus.forms import Form
from recycle_cli.corpus.images import IMAGE
from recycle_cli.corpus.labels import ReadLabel, one_label, several_labels
from recycle_cli.corpus.numbers import NumbersForm, read_numbers
from recycle_cli.corpus.pairs import PartnersForm
from recycle_cli.corpus.pipes import STDIN, is_pipe, name_of
from recycle_cli.corpus.questions import QUESTION, Answer, placed, read_answers
from recycle_cli.corpus.sources import check_there, holds_records, paths_of
from recycle_cli.corpus.texts import TEXT
from recycle_cli.corpus.words import WORDS_WITH_TAGS, ReadTags

FORMS: dict[str, Form] = {"text": TEXT, "image": IMAGE}
"""The form of a plain record of each modality."""

__all__ = [
    "FORMS",
    "IMAGE",
    "QUESTION",
    "STDIN",
    "TEXT",
    "WORDS_WITH_TAGS",
    "Answer",
    "Columns",
    "Corpus",
    "Example",
    "Expand",
    "Failure",
    "Form",
    "NumbersForm",
    "PartnersForm",
    "ReadLabel",
    "ReadTags",
    "Views",
    "check_there",
    "holds_records",
    "is_pipe",
    "name_of",
    "one_label",
    "paths_of",
    "placed",
    "read_answers",
    "read_numbers",
    "several_labels",
    "text_in_file",
]
