"""A pooled head learns from pooled vectors of several states, or from rows that it pools, and its RUN is exact."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from recycle_cli.batches import InOrder, source_at
from recycle_cli.errors import MismatchError, UsageError
from recycle_cli.keys import Sample, keys_of
from recycle_cli.models.probe import Probe
from recycle_cli.runs import read_info
from recycle_cli.settings import (
    AdapterSettings,
    ClassificationSettings,
    CorpusSettings,
    HeadLayerSettings,
    HeadSettings,
    LadderSettings,
    ModelSettings,
    PairSettings,
    PooledSettings,
    RegressionSettings,
    SampleSettings,
    SimilaritySettings,
    TokenSettings,
    TrainingSettings,
)
from recycle_cli.store import Store
from recycle_cli.verbs.finetune import Job, finetune_heads
from tests.records import records, write_csv
from tests.tasks.regressions import numbered_texts
from tests.trainings import Tried, log_of, resumes_exactly, scored_as_told, trained

POOLED = HeadLayerSettings("pooled")
SOLVED = TrainingSettings(batch_size=8)
TRAINED = TrainingSettings(epochs=2, batch_size=8)
HIDDEN = HeadLayerSettings("pooled", pooled=PooledSettings(hidden=8))
POOL = {"pool": ("mean", "cls", "max")}
EVERY = {"cut": "every"}


def classes(folder, model, layers=POOLED, **more):
    paths = [write_csv(folder / f"{seed}.csv", records(60 - 40 * seed, seed)) for seed in (0, 1)]
    train, test = (CorpusSettings((str(path),)) for path in paths)
    settings = ClassificationSettings(layers=layers)
    return Tried("text-classification", settings, folder, ModelSettings(str(model), None, 16), train, test, POOL | more)


def numbers(folder, model):
    paths = [write_csv(folder / f"{seed}.csv", numbered_texts(40 - 28 * seed, seed)) for seed in (0, 1)]
    train, test = (CorpusSettings((str(path),)) for path in paths)
    settings = RegressionSettings(layers=POOLED)
    return Tried("regression", settings, folder, ModelSettings(str(model), None, 16), train, test, POOL)


def several(folder, model):
    rows = [{"text": row["text"], "label": f"{row['label']}|all"} for row in records(40)]
    path = CorpusSettings((str(write_csv(folder / "several.csv", rows)),))
    settings = ClassificationSettings(multi_label=True, layers=POOLED)
    return Tried("text-classification", settings, folder, ModelSettings(str(model), None, 16), path, path, POOL)


def groups(folder, model):
    settings = SimilaritySettings(group_samples=2, layers=POOLED)
    return replace(classes(folder, model), name="similarity", settings=settings)


def pairs(folder, model):
    texts = [row["text"] for row in records(48)]
    rows = [{"first": first, "second": second} for first, second in zip(texts[::2], texts[1::2], strict=True)]
    path = CorpusSettings((str(write_csv(folder / "pairs.csv", rows)),), text_column="first", text_pair_column="second")
    samples = {"samples": SampleSettings("pair-similarity"), **POOL}
    settings = PairSettings(layers=POOLED)
    return Tried("pair-similarity", settings, folder, ModelSettings(str(model), None, 16), path, path, samples)


def hidden(folder, model):
    return classes(folder, model, HIDDEN)


TASKS = {
    "classes": (classes, SOLVED),
    "numbers": (numbers, SOLVED),
    "several": (several, SOLVED),
    "hidden": (hidden, TRAINED),
    "groups": (groups, TRAINED),
    "pairs": (pairs, TRAINED),
}


LONG = ("numbers", "several", "hidden", "groups")
"""Tasks that the other two stand for on most runs."""


@pytest.mark.parametrize("task", [pytest.param(task, marks=[pytest.mark.long] * (task in LONG)) for task in TASKS])
def test_a_pooled_head_learns_from_vectors_what_it_learns_from_rows_and_in_place(task, tmp_path, tiny_bert):
    make, settings = TASKS[task]
    tried = make(tmp_path, tiny_bert)
    filled = tried.fill(**EVERY)
    assert (filled.pool, filled.cuts) == (["mean", "cls", "max"], ["0", "1", "2", "3", "4"])
    assert filled.rows == 3 * filled.new_samples
    own = replace(tried, usual=TRAINED)
    report = trained(own) if settings is TRAINED else tried.fit("stored", settings)
    rows = replace(tried, folder=tmp_path / "rows", precomputed={**tried.precomputed, "pool": ()})
    rows.folder.mkdir()
    rows.fill(**EVERY)
    of_rows, inplace = rows.fit("rows", settings), tried.fit("inplace", settings, **EVERY)
    # All vectors are of one length, so that batches of like lengths are others than those of rows.
    alike = (report, of_rows, inplace) if settings is SOLVED else (of_rows, inplace)
    losses = [found.epochs[-1]["epoch_loss"] for found in alike]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-3, atol=1e-5)
    assert sum(report.depth.values()) == pytest.approx(1)
    scores = [tried.score("stored", tried.store), tried.score("stored", rows.store), tried.score("stored")]
    assert [(done.hits > 0, done.misses > 0) for done, _ in scores] == [(True, False), (True, False), (False, True)]
    for done, _ in scores:
        assert done.metrics == pytest.approx(report.metrics, abs=1e-3)
    if settings is TRAINED:
        resumes_exactly(own)


@pytest.fixture(scope="module")
def solved(tmp_path_factory, tiny_bert):
    """Classes, a store of pooled vectors, and a RUN."""
    tried = classes(tmp_path_factory.mktemp("pooled"), tiny_bert)
    tried.fill(**EVERY)
    return tried, tried.fit("run", SOLVED)


def features_of(tried):
    """The vectors of the training's texts as the store has them (n, inputs), and their labels as numbers."""
    store = Store.open(tried.store)
    rows = records(60, 0)
    keys, digests = keys_of([Sample("", {"text": row["text"]}) for row in rows])
    source = source_at(store, tuple(store.recipe.cuts), [store.lookup(keys, digests)], None)
    found = torch.empty(len(rows), 15 * store.row_shape("0")[0])
    for members, batch in source.epoch(InOrder(16), 0).load(0):
        found[members] = torch.cat([batch[f"{cut}/rows"].flatten(1) for cut in source.cuts], dim=1)
    names = sorted({row["label"] for row in rows})
    return found, torch.tensor([names.index(row["label"]) for row in rows])


def test_a_linear_head_is_at_its_optimum(solved):
    tried, report = solved
    features, wanted = features_of(tried)
    probe = Probe.load(tried.folder / "run" / "pooled")
    deviation = features.std(0, correction=0)
    assert torch.allclose(probe.mean, features.mean(0), atol=1e-5)
    assert torch.allclose(probe.deviation, deviation.clamp_min(0.01 * deviation.mean()), atol=1e-5)
    standard = ((features - probe.mean) / probe.deviation).double()
    weights = torch.zeros(3, features.shape[1] + 1, dtype=torch.float64, requires_grad=True)

    def loss():
        outputs = standard @ weights[:, :-1].T + weights[:, -1]
        penalty = report.solved_with / 2 * weights[:, :-1].square().sum()
        return torch.nn.functional.cross_entropy(outputs, wanted) + penalty

    def step():
        solver.zero_grad()
        value = loss()
        value.backward()
        return value

    solver = torch.optim.LBFGS([weights], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")
    solver.step(step)
    found = torch.cat([probe.output.weight, probe.output.bias[:, None]], dim=1).detach()
    assert torch.linalg.norm(found - weights) < 0.01 * torch.linalg.norm(weights)
    assert report.epochs[0]["epoch_loss"] < 0.9 * np.log(3)


def test_heads_of_one_read_are_each_as_alone(solved):
    tried, report = solved
    kinds = {"same": {}, "stiff": {"l2": 10.0}, "few": {"lasso": 0.5}, "deep": {"hidden": 8}}
    heads = [
        HeadSettings(name, replace(SOLVED, epochs=2 if name == "deep" else SOLVED.epochs, task=layers))
        for name, layers in (
            (name, ClassificationSettings(layers=HeadLayerSettings("pooled", pooled=PooledSettings(**more))))
            for name, more in kinds.items()
        )
    ]
    job = Job(tried.train, str(tried.folder / "heads"), tried.store, tried.test, tensorboard=False)
    together = {head["name"]: head for head in finetune_heads(job, ModelSettings(), heads).heads}
    assert together["same"]["metrics"] == pytest.approx(report.metrics, abs=1e-4)
    stiff = replace(tried, settings=heads[1].training.task).fit("stiff", SOLVED)
    assert together["stiff"]["metrics"] == pytest.approx(stiff.metrics, abs=1e-4)
    assert together["stiff"]["solved_with"] == stiff.solved_with == 10.0
    assert 0.0 in together["few"]["depth"].values()
    assert 0.0 not in together["same"]["depth"].values()


def test_torch_alone_loads_a_pooled_head(solved):
    tried, _ = solved
    info = read_info(tried.folder / "run")
    assert (info.pooled, info.ladder, info.cut) == (True, False, "0,1,2,3,4")
    features, _ = features_of(tried)
    torch.save(features[:4], tried.folder / "features.pt")
    code = (
        "import sys, torch; sys.path.insert(0, 'run/pooled'); from probe import Probe; "
        "probe = Probe.load('run/pooled').eval(); "
        "print(torch.softmax(probe(torch.load('features.pt')), 1).tolist()); "
        "assert not any(name.startswith('recycle') for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tried.folder, capture_output=True, text=True, check=True)
    assert np.array(json.loads(done.stdout)).shape == (4, 3)


def test_predictions_are_written_back_pooled(solved, tmp_path):
    tried, _ = solved
    store = str(tmp_path / "store")
    tried.precompute(store, [replace(tried.train, limit=4)], "every")
    first, found = tried.score("run", store, write_back=True)
    again, same = tried.score("run", store)
    assert (first.misses > 0, again.misses) == (True, 0)
    scores = [[row["score"] for row in rows] for rows in (found, same)]
    np.testing.assert_allclose(*scores, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "settings", "said"),
    [
        (HeadLayerSettings(), {}, "holds pooled vectors (mean, cls, max) and no rows"),
        (HeadLayerSettings("ladder"), {}, "holds pooled vectors (mean, cls, max) and no rows"),
        (
            HeadLayerSettings("pooled", pooled=PooledSettings(("last",))),
            {},
            "--pool last: the store holds mean, cls, max",
        ),
        (POOLED, {"epochs": 7}, "--epochs: a linear pooled head is solved"),
        (POOLED, {"mixup": 0.2}, "--mixup: a linear pooled head is solved"),
        (POOLED, {"adapter": AdapterSettings("lora")}, "--adapter lora is put on the model's own layers"),
        (
            HeadLayerSettings("pooled", pooled=PooledSettings(hidden=8, l2=1.0)),
            {},
            "--pooled-lambda: only a",
        ),
        (
            HeadLayerSettings("pooled", pooled=PooledSettings(dropout=0.1)),
            {},
            "--pooled-dropout: a linear head has none",
        ),
        (HeadLayerSettings("pooled", ladder=LadderSettings(8)), {}, "--ladder-width: only --head ladder has it"),
        (HeadLayerSettings(pooled=PooledSettings(l2=1.0)), {}, "--pooled-lambda: only --head pooled has it"),
    ],
)
def test_what_cannot_be_is_refused_by_name(solved, layers, settings, said):
    tried, _ = solved
    with pytest.raises((UsageError, MismatchError)) as refused:
        replace(tried, settings=ClassificationSettings(layers=layers)).fit("none", replace(SOLVED, **settings))
    assert said in str(refused.value)


def test_rows_are_no_pooled_head(solved):
    tried, _ = solved
    tagging = replace(tried, name="token-classification", settings=TokenSettings(layers=POOLED))
    with pytest.raises(UsageError, match="--head pooled gives one output a sample"):
        tagging.fit("none", SOLVED)


def test_a_store_of_other_cuts_is_refused_with_the_command_that_fills_a_fitting_one(solved, recycle, tmp_path):
    tried, _ = solved
    assert "library_name: recycle\n" in (tried.folder / "run" / "README.md").read_text()
    fitting = str(tmp_path / "fitting")
    report, rows = scored_as_told(tried, recycle, fitting)
    assert (report.hits, report.misses) == (20, 0)
    assert Store.open(fitting).recipe.poolings == ("mean", "cls", "max")
    expected = tried.score("run")[1]
    for row, own in zip(rows, expected, strict=True):
        assert row["score"] == pytest.approx(own["score"], abs=1e-4)


def test_a_head_that_was_interrupted_is_solved_again(solved):
    tried, report = solved
    assert tried.fit("run", SOLVED, overwrite=True).metrics == report.metrics
    assert [line["loss"] for line in log_of(tried.folder / "run") if "loss" in line] == [report.epochs[0]["epoch_loss"]]


def last_layer_of(run, texts):
    """What the classifier of a RUN reads for each text, and its weights, by transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(run).eval()
    tokenizer = AutoTokenizer.from_pretrained(run)
    read = []
    model.classifier.register_forward_pre_hook(lambda layer, inputs: read.append(inputs[0]))
    with torch.inference_mode():
        for text in texts:
            model(**tokenizer(text, truncation=True, max_length=16, return_tensors="pt"))
    return torch.cat(read).double().numpy(), model.classifier.weight.detach().double().numpy()


def test_a_classifier_begins_where_a_pooled_head_has_got_to(solved, tmp_path):
    tried, _ = solved
    rows = replace(tried, folder=tmp_path, precomputed={}, settings=ClassificationSettings())
    rows.fill()
    still = replace(SOLVED, epochs=1, learning_rate=0.0)
    plain = rows.fit("plain", still)
    begun = rows.fit("begun", still, head_init=str(tried.folder / "run"))
    assert begun.epochs[0]["epoch_loss"] < 0.95 * plain.epochs[0]["epoch_loss"]
    read, weights = last_layer_of(tmp_path / "begun", [row["text"] for row in records(60, 0)])
    scores = [
        [row[f"score_{name}"] for name in begun.classes] for row in tried.score("run", tried.store, test=tried.train)[1]
    ]
    logits = np.log(scores)
    logits -= logits.mean(axis=1, keepdims=True)  # softmax leaves the differences between them
    centred = read - read.mean(axis=0)
    width = read.shape[1]
    penalty = np.eye(width) * np.sqrt((centred**2).sum(axis=0).mean())  # ridge regression as plain least squares
    expected, *_ = np.linalg.lstsq(np.vstack([centred, penalty]), np.vstack([logits, np.zeros((width, 3))]))
    np.testing.assert_allclose(weights - weights.mean(axis=0), expected.T, rtol=1e-3, atol=1e-4)
    with pytest.raises(UsageError, match="it is no pooled head"):
        rows.fit("none", still, head_init=str(tmp_path / "plain"))
    with pytest.raises(UsageError, match="begins so"):
        tried.fit("none", SOLVED, head_init=str(tried.folder / "run"))
