"""Shards of a corpus: every record in exactly one, whatever the files are, and those of the others not read if a reader
can do without."""

import json
import re
from dataclasses import replace
from itertools import chain

import pyarrow as pa
import pytest
from pyarrow import parquet

from recycle_cli.corpus import IMAGE, TEXT, Corpus
from recycle_cli.corpus.questions import QUESTION
from recycle_cli.corpus.words import WORDS_WITH_TAGS
from recycle_cli.errors import DataError
from recycle_cli.settings import CorpusSettings, Shard
from recycle_cli.settings.shards import shard, shard_of_torchrun

TEXTS = [f"text {number} " + "é" * (number * 7 % 40) for number in range(157)]


def jsonl(folder):
    for name, texts in (("a", TEXTS[:100]), ("b", TEXTS[100:101]), ("c", TEXTS[101:])):
        lines = [json.dumps({"text": text}, ensure_ascii=name == "a") + "\n" for text in texts]
        (folder / f"{name}.jsonl").write_text("\ufeff" * (name == "c") + "\n".join(lines), encoding="utf-8")
    return TEXT, folder / "*.jsonl"


def plain(folder):
    content = "\r\n".join(TEXTS[:90]) + "\r" + "\n\n".join(TEXTS[90:])
    (folder / "texts.txt").write_bytes(content.encode())
    return TEXT, folder / "texts.txt"


def csv(folder):
    rows = "".join(f'"{text}\n, ""and"" more",{place}\n' for place, text in enumerate(TEXTS))
    (folder / "texts.csv").write_text("text,id\n" + rows, encoding="utf-8")
    return TEXT, folder / "texts.csv"


def compressed(folder):
    import gzip

    with gzip.open(folder / "texts.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in TEXTS)
    return TEXT, folder / "texts.jsonl.gz"


def tables(folder):
    for name, texts in (("a", TEXTS[:110]), ("b", TEXTS[110:])):
        parquet.write_table(pa.table({"text": texts}), folder / f"{name}.parquet", row_group_size=13)
    return TEXT, folder / "*.parquet"


def arrow(folder):
    table = pa.table({"text": TEXTS})
    with pa.ipc.new_file(folder / "texts.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=20)
    return TEXT, folder / "texts.arrow"


def saved(folder):
    from datasets import Dataset

    Dataset.from_dict({"text": TEXTS}).save_to_disk(str(folder / "saved"))
    return TEXT, folder / "saved"


def conll(folder):
    (folder / "words.conll").write_text("\n\n".join(f"word{place} O" for place in range(157)), encoding="utf-8")
    return WORDS_WITH_TAGS, folder / "words.conll"


def squad(folder):
    about = [{"id": str(place), "question": f"{place}?", "answers": []} for place in range(157)]
    content = {"data": [{"title": "t", "paragraphs": [{"context": "words", "qas": about}]}]}
    (folder / "questions.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return QUESTION, folder / "questions.json"


def class_folders(folder):
    for place in range(40):
        path = folder / "tree" / f"class{place % 3}" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image %d" % place)
    return IMAGE, folder / "tree"


def image_files(folder):
    for place in range(10):
        (folder / f"{place}.png").write_bytes(b"image %d" % place)
    return IMAGE, folder / "*.png"


def fields_of(form, source, part=None):
    read = Corpus(CorpusSettings((str(source),), shard=part), form=form)
    return [tuple(sample.fields.items()) for sample in read.samples()]


def many_tables(folder):
    """So many files that each of 3 shards has some of them as a whole."""
    for place in range(40):
        rows = ["text", *TEXTS[place * 4 : place * 4 + 4]]
        (folder / f"{place:02}.csv").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return TEXT, folder / "*.csv"


DEALT_OUT = [csv, compressed, arrow, conll, squad, class_folders]
BY_BYTES = [jsonl, plain]
BY_NUMBER = [tables, saved, image_files]


def divided(made, of):
    """The records of all, and those of each shard."""
    form, source = made
    return fields_of(form, source), [fields_of(form, source, Shard(index, of)) for index in range(of)]


@pytest.mark.parametrize("of", [1, 3, 8])
@pytest.mark.parametrize("make", DEALT_OUT)
def test_records_that_are_dealt_out_are_in_exactly_one_shard(make, of, tmp_path):
    whole, parts = divided(make(tmp_path), of)
    assert sorted(chain(*parts)) == sorted(whole)


@pytest.mark.parametrize("of", [1, 3, 8])
@pytest.mark.parametrize("make", [*BY_BYTES, *BY_NUMBER])
def test_shards_of_files_that_need_not_be_read_from_the_start_are_runs_of_records(make, of, tmp_path):
    whole, parts = divided(make(tmp_path), of)
    assert list(chain(*parts)) == whole


@pytest.mark.parametrize("of", [1, 3, 8])
@pytest.mark.parametrize("make", BY_NUMBER)
def test_shards_of_records_that_are_counted_differ_by_one_at_most(make, of, tmp_path):
    _, parts = divided(make(tmp_path), of)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_more_shards_than_records_leave_some_without_any(tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n{"text": "two"}', encoding="utf-8")
    parts = [fields_of(TEXT, tmp_path / "texts.jsonl", Shard(index, 9)) for index in range(9)]
    assert sorted(map(len, parts)) == [0] * 7 + [1, 1]


def test_of_many_files_each_is_read_by_one_shard(tmp_path):
    form, source = many_tables(tmp_path)
    whole, parts = divided((form, source), 3)
    assert list(chain(*parts)) == whole
    assert max(map(len, parts)) <= len(whole) / 3 * 1.2
    for path in sorted(tmp_path.iterdir())[30:]:
        path.write_bytes(b"\xff" * path.stat().st_size)
    assert fields_of(form, source, Shard(1, 3)) == parts[1]


def test_a_shard_reads_no_bytes_of_the_others(tmp_path):
    form, source = plain(tmp_path)
    half = source.stat().st_size // 2
    content = source.read_bytes()
    source.write_bytes(b"\xff" * (half - 200) + b"\n" + content[half - 199 :])
    assert fields_of(form, source, Shard(1, 2)) == fields_of(TEXT, plain(tmp_path)[1], Shard(1, 2))


def test_a_record_that_cannot_be_used_is_found_by_its_byte(tmp_path):
    lines = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    lines[120] = "no JSON\n"
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"texts\.jsonl from byte (\d+), record (\d+): not JSON") as raised:
        fields_of(TEXT, path, Shard(1, 2))
    start, number = map(int, re.search(r"byte (\d+), record (\d+)", str(raised.value)).groups())
    assert path.read_bytes()[start:].splitlines()[number - 1] == b"no JSON"
    skipping = CorpusSettings((str(path),), on_error="skip", shard=Shard(1, 2))
    told = []
    assert len(list(Corpus(skipping, on_failure=told.append))) == len(
        list(Corpus(replace(skipping, shard=None)))
    ) - len(fields_of(TEXT, path, Shard(0, 2)))
    assert told[0].id.endswith(f"from byte {start}, record {number}")


@pytest.mark.parametrize(
    ("text", "variables", "expected"),
    [
        ("0/4", {}, Shard(0, 4)),
        ("slurm", {"ID": "7", "COUNT": "4", "MIN": "1", "MAX": "10", "STEP": "3"}, Shard(2, 4)),
        ("slurm", {"ID": "0", "COUNT": "1", "MIN": "0", "MAX": "0"}, Shard(0, 1)),
    ],
)
def test_a_shard_is_read_from_text_and_from_a_jobs_variables(text, variables, expected):
    assert shard(text, {f"SLURM_ARRAY_TASK_{name}": value for name, value in variables.items()}) == expected


@pytest.mark.parametrize(
    ("text", "variables", "said"),
    [
        ("4/4", {}, "I from 0 to N-1"),
        ("-1/4", {}, "I from 0 to N-1"),
        ("1", {}, "I/N"),
        ("0/0", {}, "I/N"),
        ("slurm", {}, "sbatch --array"),
        ("slurm", {"ID": "3", "COUNT": "3", "MIN": "1", "MAX": "7"}, "gaps"),
        ("torchrun", {}, "start the command by torchrun"),
    ],
)
def test_text_and_variables_that_tell_no_shard_are_refused(text, variables, said):
    with pytest.raises(ValueError, match=said):
        shard(text, {f"SLURM_ARRAY_TASK_{name}": value for name, value in variables.items()})


@pytest.mark.parametrize("ranks", [("2", "2"), ("-1", "2"), ("one", "2"), ("0", "")])
def test_ranks_that_tell_no_shard_are_refused(ranks):
    variables = dict(zip(("RANK", "WORLD_SIZE"), ranks, strict=True))
    with pytest.raises(ValueError, match="expected numbers"):
        shard_of_torchrun(variables | {"TORCHELASTIC_RUN_ID": "none"})


def test_torchrun_tells_the_shard_and_other_launchers_variables_only_if_that_is_asked_for():
    ranks = {"RANK": "1", "WORLD_SIZE": "2"}
    assert shard("torchrun", ranks) == Shard(1, 2)
    with pytest.raises(ValueError, match=r"--shard torchrun .* shard 1/2 .* --shard 0/1"):
        shard_of_torchrun(ranks)
    assert shard_of_torchrun({"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert shard_of_torchrun({"RANK": "0"}) is None
    assert shard_of_torchrun(ranks | {"TORCHELASTIC_RUN_ID": "none"}) == Shard(1, 2)
