"""Layers freeze while the others train: in place, and from rows that are written on the way."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from recycle_cli.errors import UsageError
from recycle_cli.settings import (
    AdapterSettings,
    ClassificationSettings,
    CorpusSettings,
    FreezeSettings,
    HeadLayerSettings,
    HeadSettings,
    ModelSettings,
    PrecomputeSettings,
    PredictSettings,
    TrainingSettings,
    ViewSettings,
)
from recycle_cli.training import Trainer
from recycle_cli.verbs.finetune import Job, finetune_heads
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict
from tests.conftest import tiny_config
from tests.models.vision.test_transformers import saved
from tests.tasks.corpora import shapes
from tests.training.freezing.conftest import IN_PLACE, Tried
from tests.trainings import log_of, stopped_after

KEPT = FreezeSettings("bound", cache="always", dtype="float32")
STILL_GPT2 = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}


@pytest.fixture(scope="module")
def stores():
    """How many stores of rows there are after each checkpoint of the training whose rows are kept."""
    return []


@pytest.fixture(scope="module")
def kept(texts, stores):
    save = Trainer.save

    def watched(trainer):
        save(trainer)
        folder = trainer.folder / "checkpoint" / "scratch"
        stores.append(len(list(folder.iterdir())) if folder.exists() else 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "save", watched)
        return texts.fit("kept", KEPT, save_steps=1)


def decisions(run):
    return [line["freezing"] for line in log_of(run) if "freezing" in line]


def test_losses_from_moved_rows_are_those_of_freezing_in_place(texts, in_place, kept):
    """Blocks 1, 2 and 3 of 3 freeze after epochs 1, 2 and 3; the rows of the last are not worth their writing."""
    assert [one["frozen"] for one in decisions(kept.output)] == [["1"], ["1", "2"], ["1", "2", "3"], ["1", "2", "3"]]
    assert [one["cut"] for one in decisions(kept.output)] == ["1", "2", "3", "3"]
    assert [(one["epoch"], one["cut"]) for one in kept.freezing["moves"]] == [(3, "1"), (4, "2")]
    assert [(one["read_cut"], one["frozen_cut"]) for one in kept.epochs] == [
        ("0", "0"),
        ("0", "1"),
        ("1", "2"),
        ("2", "3"),
    ]
    assert in_place.freezing["moves"] == []
    assert len(texts.losses("kept")) == 16
    np.testing.assert_allclose(texts.losses("kept"), texts.losses("in-place"), rtol=0, atol=1e-5)
    assert kept.metrics["loss"] == pytest.approx(in_place.metrics["loss"], abs=1e-5)
    assert decisions(kept.output) == decisions(in_place.output)


def test_the_seconds_of_each_phase_are_told(in_place, kept):
    for report in (in_place, kept):
        for epoch in report.epochs:
            phases = epoch["phases"]
            assert {"read", "forward", "backward", "step"} <= phases.keys()
            assert 0 < sum(phases.values()) <= epoch["seconds"]
    assert ["write" in one["phases"] for one in kept.epochs] == [False, True, True, False]
    assert not any("write" in one["phases"] for one in in_place.epochs)


@pytest.mark.usefixtures("kept")
def test_at_most_the_rows_of_two_cuts_are_there(stores):
    assert max(stores) == 2
    assert stores[-1] == 1


def test_nothing_is_left_of_the_rows_and_the_run_is_an_ordinary_one(texts, kept, tmp_path):
    names = {path.name for path in (texts.folder / "kept").iterdir()}
    assert not names & {"scratch", "checkpoint"}
    found = predict(texts.test, kept.output, None, str(tmp_path / "p.csv"), ModelSettings(), PredictSettings())
    assert found.metrics["loss"] == pytest.approx(kept.metrics["loss"], abs=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(tiny_config("gpt2", num_hidden_layers=3, **STILL_GPT2), id="gpt2", marks=pytest.mark.long),
        pytest.param(tiny_config(num_hidden_layers=3), id="bert-dropout", marks=pytest.mark.long),
        pytest.param(tiny_config("modernbert", num_hidden_layers=3), id="modernbert", marks=pytest.mark.long),
    ],
)
def test_other_architectures(make_tried, config):
    """With dropout, too: frozen blocks draw nothing, so that those that train draw the same."""
    tried = make_tried(config)
    tried.fit("in-place", IN_PLACE)
    assert len(tried.fit("kept", KEPT).freezing["moves"]) == 2
    np.testing.assert_allclose(tried.losses("kept"), tried.losses("in-place"), rtol=0, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_images(family, tmp_path):
    """Statistics of BatchNorm stand still in what is frozen, in place and in the rows alike."""
    (tmp_path / "model").mkdir()
    model = saved(tmp_path / "model", family)
    folder = shapes(tmp_path / "shapes")
    train, val = (CorpusSettings((str(folder / name),)) for name in ("train", "val"))
    settings = TrainingSettings(epochs=4, batch_size=16, learning_rate=1e-3)
    tried = Tried(tmp_path, model, train, val, "image-classification", settings)
    tried.fit("in-place", IN_PLACE)
    kept = tried.fit("kept", KEPT)
    assert len(kept.freezing["moves"]) == 2
    np.testing.assert_allclose(tried.losses("kept"), tried.losses("in-place"), rtol=0, atol=1e-5)


def test_frozen_weights_stand_still(in_place, seen):
    assert [len(one) for one in seen] == sorted(len(one) for one in seen)
    assert any(name.startswith("bert.embeddings") for name in seen[0])
    assert not any("layer.1" in name or "classifier" in name for name in seen[0])
    for one, later in pairwise(seen):
        for name, weight in one.items():
            assert torch.equal(later[name], weight), name


@pytest.mark.parametrize("rule", ["gradient-norm", pytest.param("autofreeze", marks=pytest.mark.long)])
def test_a_rule_that_watches_gradients_resumes_in_the_middle_of_an_interval(texts, rule):
    """The sums of an interval are in the checkpoint, and the rows that were written before it are there."""
    about = FreezeSettings(rule, interval=3, cache="always")
    whole = texts.fit(f"whole-{rule}", about)
    lines = decisions(whole.output)
    assert lines[0]["changes"] is None
    assert [len(line["norms"]) for line in lines] == [3] * (16 // 3)
    assert lines[-1]["frozen"]
    with stopped_after(6):
        texts.fit(f"cut-{rule}", about, save_steps=2)
    resumed = texts.fit(f"cut-{rule}", about, save_steps=2, resume=True)
    assert log_of(resumed.output) == log_of(whole.output)
    moves = ([{**one, "seal_seconds": 0} for one in report.freezing["moves"]] for report in (whole, resumed))
    assert next(moves) == next(moves)
    assert resumed.freezing["cut"] == whole.freezing["cut"]
    assert resumed.metrics == whole.metrics


def test_from_a_store_the_shared_rows_stay_as_they_are(texts, tmp_path):
    store = tmp_path / "store"
    for corpus in (texts.train, texts.test):
        precompute(corpus, str(store), texts.model, PrecomputeSettings(("1",), "float32"))
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    about, picture = {"rule": "linear", "start": 0.0}, tmp_path / "picture.svg"
    in_place = texts.fit("store-in-place", FreezeSettings(**about, cache="never"), store=str(store))
    kept = texts.fit(
        "store-kept", FreezeSettings(**about, cache="always", keep_scratch=True, plot=str(picture)), store=str(store)
    )
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before
    np.testing.assert_allclose(texts.losses("store-kept"), texts.losses("store-in-place"), rtol=0, atol=1e-5)
    assert "Seconds an epoch" in picture.read_text(encoding="utf-8")
    assert kept.cut == in_place.cut == "1"  # where the RUN's head begins, whatever has frozen behind it
    assert [one["cut"] for one in kept.freezing["moves"]] == ["2"]
    assert len(list((texts.folder / "store-kept" / "scratch").iterdir())) == 1
    assert not (texts.folder / "store-kept" / "checkpoint").exists()
    found = predict(texts.test, kept.output, str(store), str(tmp_path / "p.csv"), ModelSettings(), PredictSettings())
    assert found.hits == 10
    assert found.metrics["loss"] == pytest.approx(kept.metrics["loss"], abs=1e-4)


@pytest.mark.long
def test_leaves_are_counted_as_composer_does(texts):
    """They freeze inside of blocks, too: a cut comes when a whole block is frozen. This BERT has 4 leaves before its
    blocks, 8 in each of the 3, and 2 behind them: of the 30, 9, 19 and 29 are frozen, and 12, 20 and 28 make a cut."""
    report = texts.fit("leaves", FreezeSettings("linear", start=0.25, unit="leaf", cache="never"), evaluation=None)
    assert report.freezing["layers"] == 30
    assert [len(one["frozen"]) for one in decisions(report.output)] == [0, 9, 19, 29]
    assert [one["cut"] for one in decisions(report.output)] == ["0", "0", "1", "3"]


@pytest.mark.long
def test_a_block_behind_an_active_one_brings_no_cut(texts, capfd):
    report = texts.fit("argmin", FreezeSettings("gradient-norm", reading="argmin", interval=2, cache="never"))
    lines = decisions(report.output)
    apart = [line for line in lines if line["frozen_without_a_cut"]]
    assert all(len(line["chosen"]) <= 1 for line in lines)
    assert [len(line["frozen"]) for line in lines] == [0, 1, 2, 3, 3, 3, 3, 3]
    assert bool(apart) == ("no cut lies behind it" in " ".join(capfd.readouterr().err.split()))


@pytest.mark.long
def test_annealed_rates_are_0_when_their_layer_freezes(texts, monkeypatch):
    rates = []
    step = Trainer.step

    def watched(trainer, rate):
        found = step(trainer, rate)
        rates.append({group.get("layer"): group["lr"] / rate for group in trainer.optimizer.param_groups})
        return found

    monkeypatch.setattr(Trainer, "step", watched)
    texts.fit("annealed", FreezeSettings("bound", anneal=True, cache="never"), evaluation=None)
    assert rates[0] == {None: 1.0, 0: 1.0, 1: 1.0, 2: 1.0}
    assert rates[2][0] == pytest.approx(0.5)  # the first block freezes after the first of four epochs of four steps
    assert rates[4][1] == pytest.approx(0.5)
    assert rates[6][2] == pytest.approx(0.5)
    assert {one[None] for one in rates} == {1.0}


@pytest.mark.parametrize(
    ("about", "changes", "message"),
    [
        (FreezeSettings(start=0.2), {}, "--freeze-start: nothing freezes; add --freeze"),
        (FreezeSettings("bound", start=0.2), {}, "--freeze-start: only --freeze linear takes it, not bound"),
        (FreezeSettings("linear", share=0.2), {}, "--freeze-share: only --freeze bound takes it"),
        (FreezeSettings("bound", interval=5), {}, "--freeze-interval: only --freeze gradient-norm and autofreeze"),
        (
            FreezeSettings("bound", cache="never", max_disk=5),
            {},
            "--max-disk: with --freeze-cache never no rows",
        ),
        (FreezeSettings("bound", dtype="int8"), {"views": ViewSettings(2)}, "--freeze-dtype: with --views each epoch"),
        (FreezeSettings("bound"), {"cut": "3"}, "no block of the model comes after the cut 3"),
        (FreezeSettings("bound"), {"adapter": AdapterSettings("lora")}, "--adapter lora has frozen the blocks already"),
        (FreezeSettings("bound"), {"mixup": 0.2}, "--mixup and --cutmix mix rows where the head begins"),
        (
            FreezeSettings("bound", cache="always"),
            {"views": ViewSettings(2)},
            "with --views each epoch sees other images",
        ),
        (
            FreezeSettings("bound"),
            {"task": ClassificationSettings(layers=HeadLayerSettings("ladder")), "cut": "1,2"},
            "--head ladder trains no block of the model",
        ),
        (FreezeSettings("bound"), {"reuse": "store"}, "with --reuse the other model's rows enter"),
    ],
)
def test_what_cannot_go_together_is_refused_by_name(texts, about, changes, message):
    with pytest.raises(UsageError, match=message):
        texts.fit("refused", about, **changes)


def test_several_heads_are_refused(texts):
    heads = [HeadSettings(name, TrainingSettings(freezing=FreezeSettings("bound"))) for name in "ab"]
    with pytest.raises(UsageError, match="the cut of each would move on its own"):
        finetune_heads(Job(texts.train, str(texts.folder / "heads"), "store"), texts.model, heads)
