"""The store's commands about records: find, contains, remove, merge."""

import gzip
import io
import json
import re
import shutil

import pytest
from PIL import Image

from recycle_cli.store import Store, info
from tests.records import records, write_csv
from tests.store.corpora import Corpus

SHAPE = ("--cut", 2, "--max-length", 16, "--batch-tokens", 400)
COMMANDS = ("find", "contains", "remove", "merge")


@pytest.fixture(scope="module")
def texts():
    return records(30)


@pytest.fixture(scope="module")
def data(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_csv(folder / "some.csv", texts[5:9])
    write_csv(folder / "other.csv", records(10, seed=9))
    return write_csv(folder / "all.csv", texts)


@pytest.fixture(scope="module")
def made(recycle, data, tiny_bert, tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "acts.zarr"
    recycle.json("precompute", data, path, "--model", tiny_bert, *SHAPE)
    return path


@pytest.fixture
def store(made, tmp_path):
    shutil.copytree(made, tmp_path / "acts.zarr")
    return tmp_path / "acts.zarr"


def text_of(record):
    return record["text"]


def test_find_tells_where_a_text_is(recycle, store, texts, tmp_path):
    text = text_of(texts[3])
    found = recycle.json("store", "find", store, "--text", text)
    (copy,) = found["copies"]
    assert (found["held"], found["cuts"]) == (True, {"2": [32]})
    assert copy["segment"] in {segment.id for segment in Store.open(str(store)).segments}
    assert copy["rows"] == copy["end_row"] - copy["first_row"] > 0
    for name, content in (("a", f"{text}\n"), ("b", f"\ufeff{text}\r\n\n"), ("c.gz", text)):
        raw = content.encode()
        (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        assert recycle.json("store", "find", store, "--file", tmp_path / name) == found
    done = recycle("store", "find", store, "--text", text)
    assert (done.code, done.out) == (0, "")
    assert found["key"] in done.err
    assert copy["segment"] in done.err
    assert re.search(r"row at cut 2 +│ 32 values", done.err)
    exported = ("store", "export", store, tmp_path / "one", "--format", "numpy", "--key", found["key"])
    assert recycle.json(*exported)["rows"] == copy["rows"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--text", "nobody wrote this"), 5, "Not held"),
        (("--text", "it", "--text-pair", "that"), 5, "Not held"),
        ((), 2, "--text or --file"),
        (("--text", "a", "--file", "b"), 2, "--text or --file"),
        (("--text", " "), 2, "empty"),
        (("--file", "nowhere.txt"), 2, "no such file"),
        (("--file", "/dev/zero"), 2, "no such file"),
    ],
)
def test_what_cannot_be_found_is_said(recycle, store, options, code, said):
    done = recycle("store", "find", store, *options)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert code == 5 or len(done.err.splitlines()) == 1


def test_contains_lists_what_is_there_and_what_is_not(recycle, store, data, tiny_bert):
    assert recycle.json("store", "contains", store, data)["held"] == 30
    lacking = recycle("store", "contains", store, data, data.with_name("other.csv"), "--json")
    found = lacking.json
    assert lacking.code == 5
    assert (found["records"], found["held"], found["missing"]) == (40, 30, 10)
    assert (len(found["held_records"]), len(found["missing_records"])) == (30, 10)
    shown = recycle("store", "contains", store, data.with_name("other.csv"))
    assert (shown.code, shown.out) == (5, "")
    assert "Missing records" in shown.err
    many = recycle("store", "contains", store, data, data.with_name("other.csv"))
    assert "and 10 more" in many.err
    assert many.err.index("Missing records") < many.err.index("Held records")


def test_remove_counts_first_and_then_removes(recycle, store, data, tiny_bert):
    some = data.with_name("some.csv")
    planned = recycle.json("store", "remove", store, some, "--dry-run")
    assert (planned["records"], planned["samples"], planned["copies"]) == (4, 4, 4)
    assert recycle.json("store", "contains", store, some)["held"] == 4
    done = recycle("store", "remove", store, some, "--quiet")
    assert (done.code, done.out) == (0, "")
    assert re.search(r"segments rewritten +│ +\d", done.err)
    gone = recycle("store", "contains", store, some, "--json")
    assert (gone.code, gone.json["held"]) == (5, 0)
    assert recycle("store", "contains", store, data, "--json").json["held"] == 26
    assert recycle.json("store", "verify", store)["damaged"] == []
    again = recycle.json("precompute", data, store, "--model", tiny_bert, *SHAPE)
    assert (again["new_samples"], again["reused_samples"]) == (4, 26)


def test_a_dry_run_needs_no_place_to_write(recycle, store, data):
    (store / "tmp/maintenance").unlink(missing_ok=True)
    recycle.json("store", "remove", store, data, "--dry-run")
    recycle.json("store", "gc", store, "--dry-run")
    assert not (store / "tmp/maintenance").exists()


def test_merge_brings_two_stores_together(recycle, store, data, tiny_bert, tmp_path):
    other = tmp_path / "other.zarr"
    recycle.json("precompute", data.with_name("other.csv"), other, "--model", tiny_bert, *SHAPE)
    done = recycle.json("store", "merge", other, store)
    assert (done["added"], done["present"]) == (10, 0)
    assert recycle.json("store", "merge", other, store)["added"] == 0
    assert info(str(store))["samples"] == 40
    shown = recycle("store", "merge", store, tmp_path / "new.zarr")
    assert (shown.code, shown.out) == (0, "")
    assert re.search(r"added\W+40", shown.err)
    recycle.json("precompute", data, tmp_path / "third.zarr", "--model", tiny_bert, "--cut", 1, "--max-length", 16)
    refused = recycle("store", "merge", tmp_path / "third.zarr", store)
    assert (refused.code, len(refused.err.splitlines())) == (4, 1)
    assert "cuts: 2 in the store, 1 asked for" in refused.err


def test_pairs_are_known_as_pairs(recycle, tiny_bert, tmp_path):
    data = tmp_path / "pairs.csv"
    data.write_text("a,b\nthe cell,a gene\nthe paper,a model\n", encoding="utf-8")
    pair = ("--text-column", "a", "--text-pair-column", "b")
    recycle.json("precompute", data, tmp_path / "s.zarr", "--model", tiny_bert, *SHAPE, *pair)
    assert recycle.json("store", "find", tmp_path / "s.zarr", "--text", "the cell", "--text-pair", "a gene")["held"]
    assert recycle("store", "find", tmp_path / "s.zarr", "--text", "the cell").code == 5
    assert recycle("store", "contains", tmp_path / "s.zarr", data, "--text-column", "a").code == 5
    assert recycle.json("store", "remove", tmp_path / "s.zarr", data, *pair)["samples"] == 2


def test_records_that_cannot_be_read_are_skipped_if_asked(recycle, store, tmp_path, texts):
    data = tmp_path / "holes.jsonl"
    lines = [{"text": text_of(texts[0])}, {"text": None}, {"text": text_of(texts[1])}]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert recycle("store", "remove", store, data).code == 3
    assert info(str(store))["samples"] == 30
    done = recycle.json("store", "remove", store, data, "--on-error", "skip")
    assert (done["records"], done["failed_records"], done["samples"]) == (2, 1, 2)


def image(shade):
    content = io.BytesIO()
    Image.new("RGB", (40, 40), (shade, 20, 90)).save(content, "PNG")
    return content.getvalue()


def test_images_are_found_and_removed_with_their_views(recycle, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(image(80 * number))
    views, store = ("--views", 2, "--augment", "flip"), tmp_path / "s.zarr"
    model = ("--model", "resnet18", "--weights", "none", "--cut", "layer1", "--resize", 32, "--crop", 32)
    made = recycle("precompute", folder, store, *model, *views, "--json")
    if made.code:
        pytest.skip(f"no model of images without a network: {made.err}")
    assert made.json["new_samples"] == 9
    assert recycle.json("store", "find", store, "--file", folder / "1.png")["held"]
    assert recycle("store", "find", store, "--text", "a").code == 2
    assert recycle.json("store", "contains", store, folder, *views)["held"] == 3
    more = ("--views", 1, "--augment", "random-crop,flip")
    assert recycle.json("precompute", folder, store, *model, *more)["new_samples"] == 3
    for number, options in ((1, ()), (0, views), (2, ("--views", 5, "--augment", "flip"))):
        done = recycle.json("store", "remove", store, folder / f"{number}.png", *options)
        assert (done["samples"], done["other_origins"]) == (4, []), "every view, whatever options are named"
    assert info(str(store))["samples"] == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_store_is_refused_in_one_line(recycle, command, data, tmp_path):
    arguments = {"find": ("--text", "a"), "merge": (tmp_path / "into",)}.get(command, (data,))
    done = recycle("store", command, tmp_path, *arguments)
    assert (done.code, len(done.err.splitlines())) == (4, 1)
    assert list(tmp_path.iterdir()) == []


def test_windows_of_long_texts_are_found_and_removed_by_the_task_that_made_them(recycle, tiny_bert, texts, tmp_path):
    context = " ".join(text_of(record) for record in texts)
    question = text_of(texts[0])
    line = {"question": question, "context": context, "answers": {"text": [context[:5]], "answer_start": [0]}}
    (tmp_path / "long.jsonl").write_text(json.dumps(line) + "\n")
    task = ("--task", "question-answering", "--stride", 4)
    windows = recycle.json(
        "precompute",
        "long.jsonl",
        "acts.zarr",
        "--model",
        tiny_bert,
        "--cut",
        2,
        "--max-length",
        24,
        *task,
        cwd=tmp_path,
    )["samples"]
    assert windows > 2
    pair = ("--text-column", "question", "--text-pair-column", "context")
    done = recycle("store", "remove", "acts.zarr", "long.jsonl", *pair, cwd=tmp_path)
    assert "holds nothing of 1 of the 1 records as they are read here" in " ".join(done.err.split())
    assert "in other ways, and maybe of these records: --task question-answering --stride 4; run" in done.err
    assert recycle.json("store", "contains", "acts.zarr", "long.jsonl", *task, cwd=tmp_path)["held"] == 1
    removed = recycle.json("store", "remove", "acts.zarr", "long.jsonl", *task, cwd=tmp_path)
    assert (removed["unknown_records"], info(str(tmp_path / "acts.zarr"))["samples"]) == (0, 0)


def test_other_ways_in_which_samples_were_made_are_told_also_if_the_record_itself_is_held(
    recycle, store, data, tiny_bert, tmp_path
):
    tagged = tmp_path / "tags.conll"
    tagged.write_text("the B-X\ncell O\n\n", encoding="utf-8")
    task, some = ("--task", "token-classification"), data.with_name("some.csv")
    recycle.json("precompute", tagged, store, "--model", tiny_bert, *SHAPE, *task)
    done = recycle("store", "remove", store, some, "--json")
    assert (done.json["samples"], done.json["other_origins"]) == (4, ["--task token-classification"])
    assert "maybe of these records: --task token-classification; run this again" in done.err
    other = recycle("store", "remove", store, tagged, *task, "--json")
    assert (other.json["samples"], other.json["other_origins"]) == (1, ["record"])
    assert "records as they are (no --task)" in other.err
    assert recycle.json("store", "remove", store, data)["other_origins"] == []


def test_a_store_that_does_not_say_how_its_samples_were_made(recycle, tmp_path):
    corpus = Corpus()
    corpus.store(tmp_path / "s.zarr", range(5))
    (tmp_path / "in.csv").write_text("text\nsample 3\n", encoding="utf-8")
    done = recycle("store", "remove", "s.zarr", "in.csv", "--json", cwd=tmp_path)
    assert (done.json["samples"], done.json["other_origins"]) == (1, ["?"])
    assert "do not say how their samples were made" in done.err
