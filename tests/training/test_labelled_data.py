"""Labelled data: what is said where there is no label at all."""

import pytest

from recycle_cli.corpus import Example
from recycle_cli.errors import DataError
from recycle_cli.keys import Sample
from recycle_cli.tasks import Classification
from recycle_cli.training import read_labelled


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (None, "no record has a label; name their column with --label-column"),
        ("mood", "no record has a label in column 'mood'; name another with --label-column"),
    ],
)
def test_a_column_without_any_label_is_refused_with_the_option_that_names_another(column, message):
    with pytest.raises(DataError, match=message):
        read_labelled(
            [Example("0", (Sample("0", {"text": "x"}),))], {column: Classification().encoder(None, lambda: None)}
        )
