"""A store is filled once: nothing twice, nothing other than the trunk gives, and only by the same recipe."""

import json
import multiprocessing
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from recycle_cli.errors import GoneError, MismatchError, ModelError, UsageError
from recycle_cli.keys import Sample, keys_of
from recycle_cli.models import load, split
from recycle_cli.models.text import opening as network
from recycle_cli.recipe import DTYPES
from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings, Shard
from recycle_cli.store import Store, gc
from recycle_cli.trunk import underway as module
from recycle_cli.verbs.precompute import precompute
from tests.conftest import tiny_config
from tests.contents import contents
from tests.models.architectures import ENCODERS
from tests.records import records, write_csv
from tests.store.corpora import Corpus

RECORDS = records(90)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_csv(tmp_path_factory.mktemp("corpus") / "corpus.csv", RECORDS)


def fill(corpus, store, model, *, max_length=12, **options):
    settings = PrecomputeSettings(**{"cuts": ("2",), "dtype": "float32", **options})
    return precompute(CorpusSettings((str(corpus),)), str(store), ModelSettings(str(model), None, max_length), settings)


@pytest.fixture
def passes(monkeypatch):
    """The lengths (B,) and cuts of every pass of a trunk from here on."""
    seen = []

    def counting(*arguments, **options):
        halves = split(*arguments, **options)

        def trunk(batch):
            rows = halves.trunk(batch)
            seen.append((batch["attention_mask"].sum(1).tolist(), sorted(rows)))
            return rows

        return replace(halves, trunk=trunk)

    monkeypatch.setattr(network, "split", counting)
    return seen


def test_a_second_precompute_runs_the_trunk_zero_times(corpus, tmp_path, tiny_bert, passes):
    first = fill(corpus, tmp_path / "s", tiny_bert)
    assert (first.samples, first.new_samples, first.reused_samples) == (90, 90, 0)
    assert sum(len(lengths) for lengths, _ in passes) == 90
    passes.clear()
    second = fill(corpus, tmp_path / "s", tiny_bert)
    assert passes == []
    assert (second.samples, second.new_samples, second.reused_samples, second.rows) == (90, 0, 90, 0)


def test_only_what_is_new_is_computed(corpus, tmp_path, tiny_bert, passes):
    part = write_csv(tmp_path / "part.csv", RECORDS[:50])
    fill(part, tmp_path / "s", tiny_bert)
    passes.clear()
    found = fill(corpus, tmp_path / "s", tiny_bert)
    assert sum(len(lengths) for lengths, _ in passes) == found.new_samples == 40


@pytest.mark.parametrize("window", [16384, 7, 1])
def test_duplicates_are_computed_once(tmp_path, tiny_bert, passes, window):
    twice = write_csv(tmp_path / "twice.csv", [*RECORDS[:30], *RECORDS[10:40], RECORDS[0]])
    found = fill(twice, tmp_path / "s", tiny_bert, window=window)
    assert sum(len(lengths) for lengths, _ in passes) == 40
    assert (found.samples, found.new_samples, found.reused_samples) == (61, 40, 21)
    assert len(contents(tmp_path / "s")) == 40


def test_memory_of_what_was_seen_is_bounded_and_still_nothing_is_doubled(tmp_path, tiny_bert, monkeypatch):
    monkeypatch.setattr(module, "SEEN_LIMIT", 10)
    before, after = [], []
    forget = module.Underway._forget_sealed

    def recorded(underway):
        before.append(len(underway.contents))
        forget(underway)
        after.append(len(underway.contents))

    monkeypatch.setattr(module.Underway, "_forget_sealed", recorded)
    many = write_csv(tmp_path / "many.csv", [*RECORDS, *RECORDS])
    found = fill(many, tmp_path / "s", tiny_bert, window=6, segment_bytes=4000)
    assert found.new_samples == len(contents(tmp_path / "s")) == 90
    assert sum(after) < sum(before)
    assert max(before) < 90


def test_a_lookup_goes_on_while_gc_replaces_what_it_had_opened(tmp_path):
    corpus = Corpus()
    for _ in range(2):
        corpus.store(tmp_path / "s", range(20))
    early = Store.open(str(tmp_path / "s"))
    gc(early.path)
    with pytest.raises(GoneError, match="run the command again"):
        early.lookup(*corpus.keys(range(20)))
    assert (module.Underway(early).lookup(*corpus.keys(range(20))) >= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_several_cuts_in_one_pass_equal_stores_of_one_cut(corpus, tmp_path, tiny_bert, passes, dtype):
    fill(corpus, tmp_path / "all", tiny_bert, cuts=("1", "50%", "100%"), dtype=dtype)
    assert {tuple(cuts) for _, cuts in passes} == {("1", "2", "4")}
    together = contents(tmp_path / "all")
    for cut in ("1", "2", "4"):
        fill(corpus, tmp_path / cut, tiny_bert, cuts=(cut,), dtype=dtype)
        alone = contents(tmp_path / cut)
        assert {key: rows[cut] for key, (_, rows) in together.items()} == {
            key: rows[cut] for key, (_, rows) in alone.items()
        }


@pytest.mark.parametrize("options", [{"window": 7}, {"window": 1}, {"batch_tokens": 1}, {"batch_tokens": 40}])
def test_windows_and_batches_do_not_change_the_rows(corpus, tmp_path, tiny_bert, options):
    fill(corpus, tmp_path / "plain", tiny_bert)
    fill(corpus, tmp_path / "other", tiny_bert, **options)
    plain, other = contents(tmp_path / "plain"), contents(tmp_path / "other")
    assert plain.keys() == other.keys()
    for key, (_, rows) in plain.items():
        one, two = (np.frombuffer(each["2"], np.float32) for each in (rows, other[key][1]))
        np.testing.assert_allclose(one, two, rtol=0, atol=2e-6 * np.abs(one).max())


def test_rows_are_what_the_trunk_gives(corpus, tmp_path, tiny_bert):
    fill(corpus, tmp_path / "s", tiny_bert)
    loaded = load(str(tiny_bert), labels=None)
    with torch.no_grad():
        inputs = loaded.tokenizer([RECORDS[3]["text"]], truncation=True, max_length=12, return_tensors="pt")
        expected = loaded.model.base_model(**inputs, output_hidden_states=True).hidden_states[2][0].numpy()
    held = [np.frombuffer(rows["2"], np.float32).reshape(-1, 32) for _, rows in contents(tmp_path / "s").values()]
    assert any(rows.shape == expected.shape and np.allclose(rows, expected, atol=1e-5) for rows in held)


def test_batches_are_sorted_by_length_within_a_window(corpus, tmp_path, tiny_bert, passes):
    fill(corpus, tmp_path / "s", tiny_bert, batch_tokens=60)
    lengths = [length for batch, _ in passes for length in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert all(len(batch) * max(batch) <= 60 for batch, _ in passes)
    padding = sum(len(batch) * max(batch) - sum(batch) for batch, _ in passes)
    assert padding < 0.1 * sum(lengths)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cuts": ("3",)}, "cuts: 2 in the store, 3 asked for"),
        ({"cuts": ("2", "3")}, "cuts: 2 in the store, 2, 3 asked for"),
        ({"max_length": 13}, "max_length: 12 in the store, 13 asked for"),
        ({"dtype": "float16"}, "dtype: float32 in the store, float16 asked for"),
    ],
)
def test_a_changed_recipe_is_refused_by_the_name_of_its_field(corpus, tmp_path, tiny_bert, passes, change, field):
    fill(corpus, tmp_path / "s", tiny_bert)
    before = contents(tmp_path / "s")
    passes.clear()
    with pytest.raises(MismatchError, match=field):
        fill(corpus, tmp_path / "s", tiny_bert, **change)
    assert passes == []
    assert contents(tmp_path / "s") == before


def test_one_changed_weight_is_refused_and_one_beyond_the_cut_is_not(corpus, tmp_path, make_tiny, passes):
    fill(corpus, tmp_path / "s", make_tiny("model", tiny_config()))
    for block, refused in [(3, False), (1, True)]:
        loaded = load(str(tmp_path / "model"), labels=None)
        loaded.model.base_model.encoder.layer[block].output.dense.bias.data[0] += 1e-3
        loaded.model.save_pretrained(tmp_path / f"changed-{block}")
        loaded.tokenizer.save_pretrained(tmp_path / f"changed-{block}")
        passes.clear()
        if refused:
            with pytest.raises(
                MismatchError, match=rf"model {tmp_path}/model, not with {tmp_path}/changed-1 \(their weights differ\)"
            ):
                fill(corpus, tmp_path / "s", tmp_path / f"changed-{block}")
        else:
            assert fill(corpus, tmp_path / "s", tmp_path / f"changed-{block}").new_samples == 0
        assert passes == []


def test_another_architecture_is_refused_by_the_field(corpus, tmp_path, tiny_bert, make_tiny):
    fill(corpus, tmp_path / "s", tiny_bert)
    with pytest.raises(MismatchError, match=r"architecture\.intermediate_size: 48 in the store, 40 asked for"):
        fill(corpus, tmp_path / "s", make_tiny("other", tiny_config(intermediate_size=40)))


def test_a_renamed_model_folder_is_the_same_model(corpus, tmp_path, make_tiny):
    folder = make_tiny("model", tiny_config())
    fill(corpus, tmp_path / "s", folder)
    folder.rename(tmp_path / "renamed")
    assert fill(corpus, tmp_path / "s", tmp_path / "renamed").new_samples == 0


def test_every_state_is_stored_in_one_pass(corpus, tmp_path, tiny_bert, passes):
    report = fill(corpus, tmp_path / "s", tiny_bert, cuts=("every:2",))
    assert report.cuts == ["0", "2", "4"]
    assert sum(len(lengths) for lengths, _ in passes) == 90
    assert {tuple(cuts) for _, cuts in passes} == {("0", "2", "4")}
    passes.clear()
    assert fill(corpus, tmp_path / "s", tiny_bert, cuts=("0,2", "100%")).new_samples == 0
    assert passes == []
    store = Store.open(str(tmp_path / "s"))
    words = load(str(tiny_bert), labels=None).model.base_model.embeddings
    for record in RECORDS[:5]:
        batch = load(str(tiny_bert), labels=None).tokenizer(record["text"], truncation=True, max_length=12)
        with torch.no_grad():
            expected = words(torch.tensor([batch["input_ids"]]))[0].numpy()
        position = store.lookup(*keys_of([Sample("", {"text": record["text"]})]))
        np.testing.assert_allclose(store.gather_rows("0", position)[0], expected, atol=1e-5)


def test_a_model_without_a_state_before_its_first_block_says_so(corpus, tmp_path, make_tiny):
    model = make_tiny("xlm", tiny_config("xlm", **ENCODERS["xlm"]))
    with pytest.raises(ModelError, match="cannot be cut at 0: its rows pass beside"):
        fill(corpus, tmp_path / "s", model, cuts=("0",))
    assert not (tmp_path / "s").exists()
    assert fill(corpus, tmp_path / "s", model, cuts=("every",)).cuts == ["1", "2", "3", "4"]


def test_provenance_finds_the_model_from_any_folder(corpus, tmp_path, tiny_bert, monkeypatch):
    monkeypatch.chdir(tiny_bert.parent)
    fill(corpus, tmp_path / "s", tiny_bert.name)
    assert Store.open(str(tmp_path / "s")).provenance["model"] == str(tiny_bert)


def test_shards_that_run_at_once_give_the_store_of_one(corpus, tmp_path, tiny_bert):
    whole = fill(corpus, tmp_path / "whole", tiny_bert)
    context = multiprocessing.get_context("fork")
    at_once = [
        context.Process(target=fill, args=(corpus, tmp_path / "shards", tiny_bert), kwargs={"shard": Shard(index, 4)})
        for index in range(4)
    ]
    for process in at_once:
        process.start()
    for process in at_once:
        process.join()
    assert [process.exitcode for process in at_once] == [0] * 4
    held = contents(tmp_path / "shards")
    assert len(held) == whole.new_samples
    assert held == contents(tmp_path / "whole")


def test_every_process_of_torchrun_takes_its_shard(corpus, tmp_path, tiny_bert, recycle):
    def command(rank, **more):
        ranks = {"RANK": str(rank), "WORLD_SIZE": "2", **more}
        named = ("--model", tiny_bert, "--cut", "2", "--dtype", "float32", "--max-length", 12)
        return recycle("precompute", corpus, tmp_path / "s", *named, "--json", env=ranks)

    done = [command(rank, TORCHELASTIC_RUN_ID="none") for rank in range(2)]
    assert [one.json["shard"] for one in done] == ["0/2", "1/2"]
    fill(corpus, tmp_path / "whole", tiny_bert)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")
    refused = command(0)
    assert refused.code == UsageError.exit_code
    assert "--shard torchrun" in refused.err


@pytest.mark.long
def test_under_torchrun_it_just_works(corpus, tmp_path, tiny_bert):
    words = ["precompute", corpus, tmp_path / "s", "--model", tiny_bert, "--cut", "2", "--dtype", "float32"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    subprocess.run([*launcher, "-m", "recycle_cli", *map(str, words), "--max-length", "12"], check=True)
    fill(corpus, tmp_path / "whole", tiny_bert)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_a_shard_without_a_usable_record_is_no_error(tmp_path, tiny_bert):
    lines = [{"text": "cell"}] * 5 + [{"text": ""}] * 5
    corpus = tmp_path / "texts.jsonl"
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = PrecomputeSettings(cuts=("2",), shard=Shard(1, 2))
    skipping = CorpusSettings((str(corpus),), on_error="skip")
    report = precompute(skipping, str(tmp_path / "s"), ModelSettings(str(tiny_bert)), settings)
    assert report.samples == report.failed_samples > 0


def test_a_shard_goes_with_no_limit_since_that_counts_from_the_first_record(corpus, tmp_path, tiny_bert):
    settings = PrecomputeSettings(cuts=("2",), shard=Shard(1, 2))
    limited = CorpusSettings((str(corpus),), limit=3)
    with pytest.raises(UsageError, match="--limit 3"):
        precompute(limited, str(tmp_path / "s"), ModelSettings(str(tiny_bert)), settings)


def test_an_empty_shard_adds_nothing(corpus, tmp_path, tiny_bert):
    assert fill(corpus, tmp_path / "s", tiny_bert, shard=Shard(80, 200)).samples == 0
