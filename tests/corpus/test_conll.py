"""CoNLL files and other records of words with tags."""

import gzip
import json

import datasets
import pytest

from recycle_cli.corpus import WORDS_WITH_TAGS, Columns, ReadTags
from recycle_cli.errors import DataError
from tests.corpora import open_corpus

SENTENCES = """-DOCSTART- -X- O O

# a comment
EU NNP B-NP B-ORG
rejects VBZ B-VP O

# id = 7
# NN B-NP O
Peter NNP B-NP B-PER
\t
-DOCSTART- -X- O O
Blackburn NNP I-NP I-PER
"""


def read(path, columns=None, names=(), **options):
    corpus = open_corpus(str(path), columns, form=WORDS_WITH_TAGS, read_label=ReadTags(names), **options)
    return [(example.sample.fields["text"], example.label) for example in corpus]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.conll", "a.txt", "a.iob2", "a.conll.gz"])
def test_sentences_are_read_and_what_is_no_word_is_passed_over(tmp_path, name):
    path = tmp_path / name
    content = SENTENCES.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert read(path) == [
        ("EU rejects", ("B-ORG", "O")),
        ("# Peter", ("O", "B-PER")),
        ("Blackburn", ("I-PER",)),
    ]


def test_columns_are_named_by_number_and_by_the_files_own_names(tmp_path):
    path = write(tmp_path / "a.conll", SENTENCES)
    assert read(path, Columns(label="2"))[0] == ("EU rejects", ("NNP", "VBZ"))
    path = write(tmp_path / "plus.conll", "# global.columns = FORM UPOS NER\nA\tDET\tO\nb c\tNOUN\tB-X\n")
    assert read(path, Columns(text="FORM", label="NER")) == [("A b\u00a0c", ("O", "B-X"))]
    assert read(path, Columns(text="1", label="2")) == [("A b\u00a0c", ("DET", "NOUN"))]
    path = write(tmp_path / "a.conllu", "1-2\tdu\t_\n1\tde\tADP\n2\tle\tDET\n2.1\tx\tX\n")
    assert read(path, Columns(text="2", label="3")) == [("de le", ("ADP", "DET"))]


def test_windows_line_ends_and_a_mark_of_byte_order(tmp_path):
    path = tmp_path / "a.conll"
    path.write_bytes("\ufeffEU\tB-ORG\r\nis\tO\r\n\r\nit\tO\r\n".encode())
    assert read(path) == [("EU is", ("B-ORG", "O")), ("it", ("O",))]


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        (
            "EU B-ORG\nis O O\n",
            None,
            r"a\.conll, line 2: 3 columns \('is O O'\), expected 2 as in the first word's line",
        ),
        ("EU\tX\tB-ORG\n\nis\tO\n", None, r"a\.conll, line 3: 2 columns \('is O'\), expected 3"),
        ("EU X B-ORG\n", Columns(label="7"), r"no column '7' \(--label-column\); the columns are: 1, 2, 3"),
        ("EU\nis\n", None, r"which column holds the tags\? Name it with --label-column"),
        ("EU B\t \n", Columns(text="2", label="1"), r"a\.conll, line 1: word 1 in column '2' is empty"),
        ("", None, "is empty"),
        ("\n\n# nothing\n", None, "expected at least one record"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_file_and_line(tmp_path, text, columns, message):
    with pytest.raises(DataError, match=message) as caught:
        read(write(tmp_path / "a.conll", text), columns, labelled=True)
    assert "\n" not in str(caught.value)


def test_records_that_cannot_be_read_are_skipped_if_asked(tmp_path):
    path = write(tmp_path / "a.conll", "EU B-ORG\n\nbad\n\nit O\n")
    assert [text for text, _ in read(path, on_error="skip")] == ["EU", "it"]


def jsonl(path, *rows):
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def test_tags_are_found_beside_the_label_of_the_whole_text(tmp_path):
    path = jsonl(
        tmp_path / "a.jsonl", {"tokens": ["EU", "is"], "tags": ["B-ORG", "O"], "label": "news", "labels": ["a"]}
    )
    assert read(path) == [("EU is", ("B-ORG", "O"))]


def test_json_lines_and_text_hold_words_too(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"tokens": ["EU", "is"], "ner_tags": ["B-ORG", "O"]}, {"tokens": ["it"]})
    assert read(path) == [("EU is", ("B-ORG", "O")), ("it", None)]
    path = jsonl(tmp_path / "b.jsonl", {"text": " EU  is\n", "tags": "B-ORG O"})
    assert read(path) == [("EU is", ("B-ORG", "O"))]


def test_tags_that_are_numbers_get_names(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"tokens": ["EU", "is"], "tags": [1, 0.0]})
    assert read(path) == [("EU is", ("1", "0"))]
    assert read(path, names=("O", "B-ORG")) == [("EU is", ("B-ORG", "O"))]
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "tags": datasets.List(datasets.ClassLabel(names=["O", "B-ORG"])),
        }
    )
    datasets.Dataset.from_list([{"tokens": ["EU", "is"], "tags": [1, 0]}], features).to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [("EU is", ("B-ORG", "O"))]


@pytest.mark.parametrize(
    ("row", "names", "reason"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, (), "2 words in column 'tokens', and 1 tags in column 'tags'"),
        ({"tokens": [], "tags": []}, (), "no words in column 'tokens'"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, (), "word 2 in column 'tokens' is empty"),
        ({"tokens": ["a", 3], "tags": ["O", "O"]}, (), "word 2 in column 'tokens' is an integer, expected a text"),
        ({"tokens": {"a": 1}, "tags": ["O"]}, (), "column 'tokens' holds an object, expected a list of words"),
        ({"tokens": ["a"], "tags": [None]}, (), r"tag 1 in column 'tags' is a NoneType \(None\), expected a name"),
        ({"tokens": ["a"], "tags": [-100]}, (), r"tag 1 in column 'tags' is an integer \(-100\), expected a name"),
        ({"tokens": ["a"], "tags": [[1]]}, (), "tag 1 in column 'tags' is a list"),
        ({"tokens": ["a"], "tags": [0.5]}, (), "tag 1 in column 'tags' is a number"),
        (
            {"tokens": ["a"], "tags": [2]},
            ("O", "X"),
            "tag 1 in column 'tags' is '2', which is none of the 2 --tag-names",
        ),
        ({"tokens": ["a"], "tags": ["Y"]}, ("O", "X"), "tag 1 in column 'tags' is 'Y', which is none of the 2"),
        ({"tokens": ["a"], "tags": 3}, (), "column 'tags' holds an integer, expected a list of tags"),
    ],
)
def test_records_that_do_not_fit_are_told_with_their_number(tmp_path, row, names, reason):
    path = jsonl(tmp_path / "a.jsonl", {"tokens": ["a"], "tags": ["O" if not names else 0]}, row)
    with pytest.raises(DataError, match=rf"a\.jsonl, record 2: {reason}"):
        read(path, names=names, labelled=True)


def test_options_of_other_records_have_no_meaning(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"tokens": ["a"], "tags": ["O"], "other": "x"})
    with pytest.raises(DataError, match="--text-pair-column has no meaning for words with tags"):
        read(path, Columns(text_pair="other"))
