"""`finetune --reuse`: a model that reads the stored last rows of another one beside its own embeddings."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file

from recycle_cli.errors import MismatchError, MissingError, StoreError, UsageError
from recycle_cli.models.text.reuse import Bridge
from recycle_cli.settings import (
    AdapterSettings,
    ClassificationSettings,
    CorpusSettings,
    HeadSettings,
    ModelSettings,
    PrecomputeSettings,
    RegressionSettings,
    SampleSettings,
)
from recycle_cli.verbs.finetune import Job, finetune_heads
from recycle_cli.verbs.precompute import precompute
from tests.conftest import WORDS, save_tiny, tiny_config
from tests.records import records, write_csv
from tests.tasks import test_pair_similarity, test_question_answering, test_token_classification
from tests.tasks.regressions import numbered_texts
from tests.tasks.tagged import tagged, write_conll
from tests.trainings import SETTINGS, Tried, stopped_after

QUICK = replace(SETTINGS, epochs=1)
PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")


def pieces() -> transformers.PreTrainedTokenizerFast:
    """Another tokenizer: pieces of at most two letters, and a special token at the beginning alone."""
    letters = {word[at : at + 2] for word in WORDS for at in range(0, len(word), 2)}
    names = ["[PAD]", "[UNK]", "[CLS]", *sorted(letters)]
    rules = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]")
    )
    rules.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.WhitespaceSplit(),
            tokenizers.pre_tokenizers.Split(tokenizers.Regex("..?"), "isolated"),
        ]
    )
    rules.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A $B:1", special_tokens=[("[CLS]", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=rules, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]"
    )


@pytest.fixture
def consumer(make_tiny):
    """A model of 2 blocks, narrower than the source, with the same tokenizer."""
    return make_tiny("consumer", tiny_config(hidden_size=16, num_hidden_layers=2), seed=5, bare=True)


@pytest.fixture
def classes(tmp_path, consumer):
    return classes_of(tmp_path, consumer)


def classes_of(folder, consumer):
    paths = [str(write_csv(folder / f"{seed}.csv", records(36 - 20 * seed, seed))) for seed in (0, 1)]
    train, test = (CorpusSettings((path,)) for path in paths)
    return Tried(
        "text-classification", ClassificationSettings(), folder, ModelSettings(str(consumer), None, 16), train, test
    )


def fill(tried, source, cuts=("100%",), dtype="float16", max_length=16):
    """Store the last rows of `source` over the data; the path of the store."""
    model = ModelSettings(str(source), None, tried.model.max_length or max_length)
    for corpus in (tried.train, tried.test):
        precompute(corpus, tried.store, model, PrecomputeSettings(cuts, dtype, **tried.precomputed))
    return tried.store


def fit(tried, output, settings=QUICK, **changes):
    return tried.fit(output, settings, **{"cut": None, "reuse": tried.store, **changes})


def answers(rows):
    return [[value for value in row.values() if isinstance(value, float)] for row in rows]


@pytest.fixture(scope="module")
def reused(tmp_path_factory, tiny_bert):
    """Classes, a store of the source, and a RUN that was trained with it."""
    folder = tmp_path_factory.mktemp("reused")
    config = tiny_config(hidden_size=16, num_hidden_layers=2)
    tried = classes_of(folder, save_tiny(folder / "consumer", config, seed=5, bare=True))
    fill(tried, tiny_bert)
    fit(tried, "run")
    return tried


@pytest.mark.parametrize("dtype", ["float16", "int4", pytest.param("int8", marks=pytest.mark.long)])
def test_hits_misses_and_no_store_give_one_prediction(classes, tiny_bert, tmp_path, dtype):
    fill(classes, tiny_bert, dtype=dtype)
    report = fit(classes, "run")
    assert (report.cut, report.store_hit_share) == ("0", 1.0)
    hits, stored = classes.score("run", classes.store)
    assert (hits.hits, hits.misses) == (16, 0)
    assert hits.metrics == pytest.approx(report.metrics, abs=1e-5)
    misses, plain = classes.score("run")
    assert (misses.hits, misses.misses) == (0, 16)
    assert np.allclose(answers(plain), answers(stored), atol=1e-4)
    # Half of the records are in a store of their own.
    half = str(tmp_path / "half")
    settings = PrecomputeSettings(("4",), dtype)
    precompute(replace(classes.test, limit=8), half, ModelSettings(str(tiny_bert), None, 16), settings)
    mixed, both = classes.score("run", half)
    assert (mixed.hits, mixed.misses) == (8, 8)
    assert np.allclose(answers(both), answers(stored), atol=1e-4)


def test_the_rows_matter_and_are_trained_with(reused):
    reused.fit("alone", QUICK, cut="0")
    assert not np.allclose(reused.losses("run"), reused.losses("alone"), atol=1e-4)
    with torch.random.fork_rng():
        torch.manual_seed(QUICK.seed)
        before = Bridge(32, 16).state_dict()
    trained = load_file(reused.folder / "run" / "reuse" / "model.safetensors")
    assert trained.keys() == before.keys()
    assert not any(one.equal(before[name]) for name, one in trained.items())


def test_a_stopped_training_goes_on_exactly(classes, tiny_bert):
    fill(classes, tiny_bert)
    untouched = fit(classes, "untouched", SETTINGS)
    with stopped_after(1):
        fit(classes, "resumed", SETTINGS)
    resumed = fit(classes, "resumed", SETTINGS, resume=True)
    assert classes.losses("resumed") == classes.losses("untouched")
    assert resumed.metrics == untouched.metrics


def test_a_resume_with_another_source_is_refused(classes, tiny_bert, make_tiny):
    fill(classes, tiny_bert)
    with stopped_after(1):
        fit(classes, "run")
    with pytest.raises(UsageError, match=r"was .* when the run began"):
        fit(classes, "run", resume=True, cut="0", reuse=None)
    other = make_tiny("other", tiny_config(), seed=9, bare=True)
    elsewhere = replace(classes, folder=classes.folder / "other")
    elsewhere.folder.mkdir(exist_ok=True)
    fill(elsewhere, other)
    with pytest.raises(UsageError, match=r"was .* when the run began"):
        fit(classes, "run", resume=True, reuse=elsewhere.store)


def test_the_run_loads_by_the_lines_of_the_page(reused):
    _, rows = reused.score("run", reused.store)
    code = re.search(r"<!-- reuse -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(code[1], names)  # noqa: S102 - the page's own lines
    model, outputs = names["load"](str(reused.folder / "run"))
    scores = torch.softmax(outputs([row["text"] for row in records(16, 1)]), dim=1)
    labels = [model.config.id2label[number] for number in range(model.config.num_labels)]
    np.testing.assert_allclose(scores, [[row[f"score_{label}"] for label in labels] for row in rows], atol=1e-4)
    # The model without the rows is another one.
    bare = transformers.AutoModelForSequenceClassification.from_pretrained(reused.folder / "run" / "base")
    assert not (reused.folder / "run" / "config.json").exists()
    tokenizer = transformers.AutoTokenizer.from_pretrained(reused.folder / "run" / "base")
    with torch.no_grad():
        plain = bare(**tokenizer([row["text"] for row in records(16, 1)], padding=True, return_tensors="pt")).logits
    assert not np.allclose(torch.softmax(plain, dim=1), scores, atol=1e-3)


def test_another_tokenizer_is_matched_by_characters(classes, tmp_path):
    source = tmp_path / "source"
    tokenizer = pieces()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = tiny_config(vocab_size=len(tokenizer), hidden_size=24, num_hidden_layers=3)
        transformers.AutoModel.from_config(config).save_pretrained(source)
    tokenizer.save_pretrained(source)
    fill(classes, source, max_length=40)
    report = fit(classes, "run")
    hits, stored = classes.score("run", classes.store)
    _, plain = classes.score("run")
    assert hits.metrics == pytest.approx(report.metrics, abs=1e-5)
    assert np.allclose(answers(plain), answers(stored), atol=1e-4)


def regression(folder, model):
    paths = [str(write_csv(folder / f"n{seed}.csv", numbered_texts(36 - 20 * seed, seed))) for seed in (0, 1)]
    train, test = (CorpusSettings((path,)) for path in paths)
    return Tried("regression", RegressionSettings(), folder, ModelSettings(str(model), None, 24), train, test)


def tags(folder, model):
    paths = [write_conll(folder / f"{seed}.conll", tagged(36 - 20 * seed, seed, 40)) for seed in (0, 1)]
    train, test = (CorpusSettings((str(path),)) for path in paths)
    settings = test_token_classification.TOKENS
    samples = {"samples": SampleSettings("token-classification", settings.windows)}
    return Tried("token-classification", settings, folder, ModelSettings(str(model), None, 16), train, test, samples)


@pytest.mark.parametrize("make", [test_pair_similarity.make, test_question_answering.make, regression, tags])
def test_every_task_takes_it(tmp_path, tiny_bert, consumer, make):
    tried = make(tmp_path, consumer)
    fill(tried, tiny_bert)
    report = fit(tried, "run", QUICK)
    found, stored = tried.score("run", tried.store)
    assert found.misses == 0
    assert found.metrics == pytest.approx(report.metrics, abs=1e-4)
    missed, plain = tried.score("run")
    assert missed.hits == 0
    assert missed.metrics == pytest.approx(report.metrics, abs=1e-3)
    assert len(plain) == len(stored)


def test_what_the_source_lacks_is_told_computed_or_left_out(classes, tiny_bert):
    fill(replace(classes, train=replace(classes.train, limit=20)), tiny_bert)
    with pytest.raises(MissingError, match=r"lacks 16 of 36 samples; fill it with `recycle precompute .*--cut 4"):
        fit(classes, "run")
    skipped = fit(classes, "skipped", replace(QUICK, on_missing="skip"))
    assert (skipped.samples, skipped.store_hit_share) == (20, pytest.approx(20 / 36))
    computed = fit(classes, "computed", replace(QUICK, on_missing="compute"))
    assert (computed.samples, computed.store_hit_share) == (36, pytest.approx(20 / 36))
    whole = fit(classes, "whole")
    assert classes.losses("computed") == classes.losses("whole")
    assert whole.store_hit_share == 1.0


def test_what_cannot_be_is_refused_by_name(classes, tiny_bert, tmp_path):
    fill(classes, tiny_bert, cuts=("2",))
    with pytest.raises(MismatchError, match="it holds the cut 2, expected 4, behind its model's last block"):
        fit(classes, "run")
    elsewhere = replace(classes, folder=tmp_path / "last")
    elsewhere.folder.mkdir()
    fill(elsewhere, tiny_bert, cuts=("2", "100%"))
    adapter = replace(QUICK, adapter=AdapterSettings("lora"))
    refused = {
        "enter before the first block, so that the model must run whole": {"store": classes.store},
        r"--cut 1: with --reuse the whole model trains \(cut 0\)": {"cut": "1"},
        "leave out --adapter lora": {"settings": adapter},
    }
    for said, changes in refused.items():
        with pytest.raises(UsageError, match=said):
            fit(elsewhere, "run", **changes)
    job = Job(classes.train, str(tmp_path / "heads"), None, classes.test, reuse=elsewhere.store, tensorboard=False)
    with pytest.raises(UsageError, match="--reuse: the model runs whole, so that heads share nothing"):
        finetune_heads(job, classes.model, [HeadSettings("a", SETTINGS)])
    fit(elsewhere, "run")
    with pytest.raises(UsageError, match=r"--write-back: .* reuses rows of "):
        elsewhere.score("run", elsewhere.store, write_back=True)
    with pytest.raises(MismatchError, match="holds the cut 2; this run reuses 4"):
        elsewhere.score("run", classes.store)


def test_rows_that_are_not_the_models_are_told(reused, tiny_bert, make_tiny, tmp_path):
    about = json.loads((reused.folder / "run" / "recycle.json").read_text())
    assert about["reuse"]["provenance"]["model"] == str(tiny_bert)
    other = make_tiny("other", tiny_config(), seed=9, bare=True)
    elsewhere = replace(reused, folder=tmp_path)
    fill(elsewhere, other)
    with pytest.raises(MismatchError, match=r"made with the model .*other, not with"):
        reused.score("run", elsewhere.store)


def test_damage_of_the_layers_is_told(reused, tmp_path):
    run = shutil.copytree(reused.folder / "run", tmp_path / "run")
    path = run / "reuse" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StoreError, match=r"reuse/model.safetensors is damaged"):
        reused.score(str(run), reused.store)


def test_the_command(recycle, classes, tiny_bert, consumer, tmp_path):
    fill(classes, tiny_bert)
    (train,), (test,) = classes.train.source, classes.test.source
    run = tmp_path / "run"
    made = recycle.json(
        *("finetune", train, "--model", consumer, "--reuse", classes.store, "--max-length", 16, "--epochs", 1),
        *("--output", run, "--eval", test),
    )
    assert made["cut"] == "0"
    report = recycle.json("predict", test, run, "--store", classes.store)
    assert (report["hits"], report["misses"]) == (16, 0)
    assert 'reuse = "' in (run / "config.toml").read_text()
    card = (run / "README.md").read_text()
    assert "which alone gives other outputs" in card
    assert "library_name: recycle\n" in card
    assert not list(run.glob("*.safetensors"))
