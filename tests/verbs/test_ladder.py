"""A ladder learns from the rows of several cuts as with the trunk in place, whatever the task, and its RUN is exact."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from recycle_cli.batches import Shuffled, at_cut, source_at
from recycle_cli.errors import DamageError, MismatchError, UsageError
from recycle_cli.keys import Sample, keys_of
from recycle_cli.models import load
from recycle_cli.runs import read_info
from recycle_cli.scorer import open_scorer
from recycle_cli.settings import (
    AdapterSettings,
    ClassificationSettings,
    CorpusSettings,
    HeadLayerSettings,
    HeadSettings,
    LadderSettings,
    ModelSettings,
    PairSettings,
    PredictSettings,
    QuestionAnsweringSettings,
    RegressionSettings,
    SampleSettings,
    SimilaritySettings,
    TokenSettings,
    TrainingSettings,
    WindowSettings,
)
from recycle_cli.store import Store
from recycle_cli.verbs.finetune import Job, finetune_heads
from tests.conftest import tiny_config
from tests.records import records, write_csv
from tests.tasks.regressions import numbered_texts
from tests.tasks.tagged import tagged, write_conll
from tests.tasks.test_question_answering import STRIDE, make
from tests.trainings import Tried, log_of, losses, resumes_exactly, scored_as_told

LADDER = HeadLayerSettings("ladder", ladder=LadderSettings(width=16))
SETTINGS = TrainingSettings(epochs=2, batch_size=8)
EVERY = {"cut": "every:2"}


def classes(folder, model, count=60, **more):
    paths = [write_csv(folder / f"{seed}.csv", records(count - 40 * seed, seed)) for seed in (0, 1)]
    train, test = (CorpusSettings((str(path),)) for path in paths)
    settings = ClassificationSettings(layers=replace(LADDER, **more))
    return Tried("text-classification", settings, folder, ModelSettings(str(model), None, 16), train, test)


def numbers(folder, model):
    paths = [write_csv(folder / f"{seed}.csv", numbered_texts(40 - 28 * seed, seed)) for seed in (0, 1)]
    train, test = (CorpusSettings((str(path),)) for path in paths)
    return Tried(
        "regression", RegressionSettings(layers=LADDER), folder, ModelSettings(str(model), None, 16), train, test
    )


def tags(folder, model):
    paths = [write_conll(folder / f"{seed}.conll", tagged(40 - 20 * seed, seed)) for seed in (0, 1)]
    train, test = (CorpusSettings((str(path),)) for path in paths)
    settings = TokenSettings(WindowSettings(3), layers=LADDER)
    samples = {"samples": SampleSettings("token-classification", settings.windows)}
    return Tried("token-classification", settings, folder, ModelSettings(str(model), None, 10), train, test, samples)


def pairs(folder, model):
    texts = [row["text"] for row in records(48)]
    rows = [{"first": first, "second": second} for first, second in zip(texts[::2], texts[1::2], strict=True)]
    path = CorpusSettings((str(write_csv(folder / "pairs.csv", rows)),), text_column="first", text_pair_column="second")
    samples = {"samples": SampleSettings("pair-similarity")}
    settings = PairSettings(layers=LADDER)
    return Tried("pair-similarity", settings, folder, ModelSettings(str(model), None, 16), path, path, samples)


def several(folder, model):
    rows = [{"text": row["text"], "label": f"{row['label']}|all"} for row in records(40)]
    path = CorpusSettings((str(write_csv(folder / "several.csv", rows)),))
    settings = ClassificationSettings(multi_label=True, layers=LADDER)
    return Tried("text-classification", settings, folder, ModelSettings(str(model), None, 16), path, path)


def groups(folder, model):
    return replace(
        classes(folder, model), name="similarity", settings=SimilaritySettings(group_samples=2, layers=LADDER)
    )


def questions(folder, model):
    return make(folder, model, QuestionAnsweringSettings(WindowSettings(STRIDE), layers=LADDER))


TASKS = {
    "classes": classes,
    "numbers": numbers,
    "tags": tags,
    "several": several,
    "groups": groups,
    "pairs": pairs,
    "questions": questions,
}


@pytest.mark.parametrize("task", TASKS)
def test_a_ladder_learns_from_the_store_what_it_learns_in_place(task, tmp_path, tiny_bert):
    tried = TASKS[task](tmp_path, tiny_bert)
    tried.fill(**EVERY)
    report = tried.fit("stored", SETTINGS)
    inplace = tried.fit("inplace", SETTINGS, **EVERY)
    np.testing.assert_allclose(tried.losses("stored"), tried.losses("inplace"), rtol=1e-4, atol=1e-5)
    assert len(set(tried.losses("stored"))) > 1
    assert report.cut == inplace.cut == "0,2,4"
    hits, stored = tried.score("stored", tried.store)
    misses, plain = tried.score("stored")
    assert (hits.misses, misses.hits) == (0, 0)
    for found in (hits, misses):
        assert found.metrics == pytest.approx(report.metrics, abs=1e-4)
    assert [row.keys() for row in stored] == [row.keys() for row in plain]


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=() if task in ("tags", "questions") else pytest.mark.long) for task in TASKS]
)
def test_it_resumes_exactly(task, tmp_path, tiny_bert):
    tried = replace(TASKS[task](tmp_path, tiny_bert), usual=SETTINGS)
    tried.fill(**EVERY)
    resumes_exactly(tried)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_bert):
    """Classes, a store of every second state, and a RUN."""
    tried = classes(tmp_path_factory.mktemp("ladder"), tiny_bert)
    tried.fill(**EVERY)
    return tried, tried.fit("run", SETTINGS)


def test_no_block_of_the_model_runs_for_hits(trained, monkeypatch):
    tried, report = trained
    passes = []
    forward = transformers.models.bert.modeling_bert.BertLayer.forward
    monkeypatch.setattr(
        transformers.models.bert.modeling_bert.BertLayer,
        "forward",
        lambda *given, **more: passes.append(1) or forward(*given, **more),
    )
    scorer = open_scorer(str(tried.folder / "run"), tried.store, ModelSettings(), PredictSettings(parity_check=False))
    before = len(passes)
    window = scorer.find([Sample("", {"text": row["text"]}) for row in records(20, 1)])
    found = [scorer.from_rows(rows, window, members) for members, rows in scorer.hits(window)]
    assert sum(len(outputs) for answers in found for outputs in answers.values()) == 20
    assert len(passes) == before
    assert tried.score("run", tried.store)[0].metrics == pytest.approx(report.metrics, abs=1e-5)
    assert len(passes) > before  # the parity check


def test_the_ladder_of_a_run_loads_without_recycle(trained, tmp_path):
    tried, _ = trained
    store, texts = Store.open(tried.store), [row["text"] for row in records(20, 1)]
    positions = store.lookup(*keys_of([Sample("", {"text": text}) for text in texts]))
    rows = {cut: torch.from_numpy(store.gather(cut, positions)[0]) for cut in ("0", "2", "4")}
    torch.save(
        {"states": torch.stack(list(rows.values())), "lengths": torch.from_numpy(store.lengths(positions))},
        tmp_path / "in.pt",
    )
    code = f"""
import sys, torch
sys.path.insert(0, {str(tried.folder / "run" / "ladder")!r})
from ladder import Ladder
given = torch.load({str(tmp_path / "in.pt")!r})
outputs = Ladder.load({str(tried.folder / "run" / "ladder")!r}).eval()(given["states"], given["lengths"])
assert "recycle_cli" not in sys.modules and "transformers" not in sys.modules
torch.save(outputs.detach(), {str(tmp_path / "out.pt")!r})
"""
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
    scores = torch.softmax(torch.load(tmp_path / "out.pt"), dim=1).numpy()
    found = tried.score("run", tried.store)[1]
    labels = json.loads((tried.folder / "run" / "ladder" / "base.json").read_text())["labels"]
    np.testing.assert_allclose([[row[f"score_{label}"] for label in labels] for row in found], scores, atol=1e-5)


def test_a_run_with_another_base_is_refused_by_the_field(tmp_path, make_tiny):
    tried = classes(tmp_path, make_tiny("model", tiny_config()), count=44)
    tried.fill(**EVERY)
    report = tried.fit("run", SETTINGS)
    whole = replace(
        tried, settings=ClassificationSettings(layers=replace(LADDER, ladder=LadderSettings(16), save="whole"))
    )
    whole.fit("whole", SETTINGS)
    loaded = load(str(tmp_path / "model"), labels=None)
    loaded.model.base_model.encoder.layer[3].output.dense.bias.data[0] += 1e-3
    loaded.model.save_pretrained(tmp_path / "model")
    with pytest.raises(MismatchError, match=r"its pretrained model .* is not what it was in the training \(cuts\.4"):
        tried.score("run")
    assert whole.score("whole")[0].metrics == pytest.approx(report.metrics, abs=1e-5)
    assert whole.score("whole", tried.store)[0].hits == 4


def test_a_damaged_ladder_is_refused(trained, tmp_path):
    tried, _ = trained
    shutil.copytree(tried.folder / "run", tmp_path / "run")
    config = tmp_path / "run" / "ladder" / "config.json"
    config.write_text("{}")
    with pytest.raises(DamageError, match=r"ladder/config\.json is damaged"):
        tried.score(str(tmp_path / "run"))


@pytest.mark.parametrize("options", [{"in_memory": True}, {"memory": 6000}])
def test_the_cuts_of_a_batch_go_together_however_they_are_read(trained, options):
    tried, report = trained
    found = tried.fit(f"read-{next(iter(options))}", replace(SETTINGS, **options))
    if "in_memory" in options:
        assert found.metrics == report.metrics
        assert losses(found.output) == losses(report.output)
    else:
        assert found.samples == report.samples
        assert np.isfinite(losses(found.output)).all()


def test_a_compressed_store_gives_what_its_rows_are(trained, tmp_path):
    tried, _ = trained
    settings = {"segment_bytes": 20_000, "codec": "lz4"}
    packed = replace(tried, folder=tmp_path, precomputed=settings)
    packed.fill(**EVERY)
    own, plain = (Store.open(one.store) for one in (packed, tried))
    keys = keys_of([Sample("", {"text": row["text"]}) for row in records(60)])
    source = source_at(own, ("0", "2", "4"), [own.lookup(*keys)], 4000)
    found = 0
    epoch = source.epoch(Shuffled(8, 0), 0)
    for expected, (members, batch) in zip(epoch.batches, epoch.load(0), strict=True):
        assert np.array_equal(expected, members)
        for cut in ("0", "2", "4"):
            rows = plain.gather(cut, plain.lookup(keys[0][members], keys[1][members]))[0]
            assert np.array_equal(at_cut(batch, cut)["rows"].numpy(), rows)
        found += len(members)
    assert found == 60


@pytest.mark.parametrize("cut", ["0", "2", "4"])
def test_the_parity_check_covers_each_state_that_is_read(trained, tmp_path, cut):
    tried, _ = trained
    shutil.copytree(tried.store, tmp_path / "store")
    for values in (tmp_path / "store").glob(f"segments/*/cuts/{cut}/values/c*"):
        for path in [values] if values.is_file() else [one for one in values.rglob("*") if one.is_file()]:
            rows = np.fromfile(path, dtype="<f4")
            (rows * 1.5).tofile(path)
    with pytest.raises(MismatchError, match=f"at cut {cut}, at most"):
        replace(tried, folder=tmp_path).fit("run", SETTINGS, data=tried.train)
    others = ",".join(other for other in ("0", "2", "4") if other != cut)
    assert tried.fit(f"without-{cut}", SETTINGS, store=str(tmp_path / "store"), cut=others).cut == others


def test_some_of_the_stores_cuts_can_be_read(trained):
    tried, _ = trained
    job = {"store": tried.store}
    assert tried.fit("two", SETTINGS, cut="0,100%", **job).cut == "0,4"
    assert tried.fit("one", SETTINGS, cut="4", **job).cut == "4"
    assert tried.score("one", tried.store)[0].hits == 20
    with pytest.raises(MismatchError, match="holds the cut 0, 2, 4, not 1, 3"):
        tried.fit("none", SETTINGS, cut="every", **job)


def test_what_the_store_lacks_is_computed_at_every_cut(trained, tmp_path):
    tried, _ = trained
    short = replace(tried, folder=tmp_path)
    short.fill(limit=10, **EVERY)
    report = short.fit("run", replace(SETTINGS, on_missing="compute"))
    assert 0 < report.store_hit_share < 1
    lacking = write_csv(tmp_path / "new.csv", records(6, 7))
    found, _ = short.score("run", short.store, test=CorpusSettings((str(lacking),)), write_back=True)
    assert found.misses > 0
    again, _ = short.score("run", short.store, test=CorpusSettings((str(lacking),)))
    assert again.misses == 0


@pytest.mark.parametrize("task", ["tags", "questions"])
def test_a_store_of_other_cuts_is_refused_with_the_command_that_fills_a_fitting_one(task, tmp_path, tiny_bert, recycle):
    tried = TASKS[task](tmp_path, tiny_bert)
    tried.fill(**EVERY)
    tried.fit("run", SETTINGS)
    report, _ = scored_as_told(tried, recycle, str(tmp_path / "fitting"))
    assert (report.hits > 0, report.misses) == (True, 0)


def test_several_ladders_train_from_one_read(trained, tmp_path):
    tried, report = trained
    heads = [
        HeadSettings(name, replace(SETTINGS, task=ClassificationSettings(layers=replace(LADDER, ladder=ladder))))
        for name, ladder in {"thin": LadderSettings(16), "wide": LadderSettings(24, 3)}.items()
    ]
    job = Job(tried.train, str(tmp_path / "runs"), tried.store, tried.test, tensorboard=False)
    found = finetune_heads(job, ModelSettings(), heads)
    assert found.heads[0]["metrics"] == report.metrics
    assert losses(tmp_path / "runs" / "thin") == losses(report.output)
    assert json.loads((tmp_path / "runs" / "wide" / "ladder" / "config.json").read_text())["blocks"] == 3
    other = HeadSettings("own", replace(SETTINGS, task=ClassificationSettings()))
    with pytest.raises(UsageError, match="head 'own': head is own and that of 'thin' is ladder"):
        finetune_heads(replace(job, output=str(tmp_path / "mixed")), ModelSettings(), [heads[0], other])


def test_heads_of_one_training_smooth_their_labels_each_in_its_own_way(trained, tmp_path):
    tried, _ = trained
    shares = {"plain": 0.0, "smooth": 0.3}
    heads = [
        HeadSettings(name, replace(SETTINGS, task=ClassificationSettings(layers=LADDER, label_smoothing=share)))
        for name, share in shares.items()
    ]
    finetune_heads(Job(tried.train, str(tmp_path), tried.store, tensorboard=False), ModelSettings(), heads)
    kept = {name: json.loads((tmp_path / name / "recycle.json").read_text())["settings"] for name in shares}
    assert {name: one["label_smoothing"] for name, one in kept.items()} == shares
    assert losses(tmp_path / "plain")[0] != losses(tmp_path / "smooth")[0]


@pytest.mark.parametrize(
    ("layers", "changes", "said"),
    [
        (HeadLayerSettings(ladder=LadderSettings(8)), {}, "--ladder-width: only --head ladder has it"),
        (HeadLayerSettings(save="whole"), {}, "--save whole: only --head ladder and pooled have it"),
        (LADDER, {"adapter": AdapterSettings("lora")}, "--adapter lora is put on the model's own layers"),
    ],
)
def test_options_without_an_effect_are_refused(trained, layers, changes, said):
    tried, _ = trained
    with pytest.raises(UsageError, match=said):
        replace(tried, settings=ClassificationSettings(layers=layers)).fit("refused", replace(SETTINGS, **changes))


def test_the_rate_is_a_ladders_unless_another_is_asked_for(trained):
    tried, report = trained
    rates = [record["learning_rate"] for record in log_of(report.output) if "learning_rate" in record]
    assert max(rates) == pytest.approx(2e-3)
    assert read_info(report.output).settings["learning_rate"] == 2e-3
    own = replace(SETTINGS, learning_rate=1e-4, epochs=1)
    found = log_of(tried.fit("slow", own).output)
    assert max(record["learning_rate"] for record in found if "learning_rate" in record) == pytest.approx(1e-4)


def test_the_commands_and_the_options_that_a_run_keeps(recycle, tiny_bert, tmp_path):
    data = write_csv(tmp_path / "data.csv", records(40))
    options = ("--model", tiny_bert, "--max-length", 16, "--cut", "0,2", "--cut", "100%")
    made = recycle.json("precompute", data, "acts.zarr", *options, cwd=tmp_path)
    assert made["cuts"] == ["0", "2", "4"]
    assert list(recycle.json("store", "info", "acts.zarr", cwd=tmp_path)["cuts"]) == ["0", "2", "4"]
    common = ("--head", "ladder", "--ladder-width", 16, "--epochs", 1)
    first = recycle.json("finetune", data, "acts.zarr", "--output", "run", *common, cwd=tmp_path)
    again = recycle.json("finetune", "--config", "run/config.toml", "--output", "again", cwd=tmp_path)
    assert first["cut"] == again["cut"] == "0,2,4"
    assert first["metrics"] == again["metrics"]
    assert recycle.json("predict", data, "run", "--store", "acts.zarr", cwd=tmp_path)["hit_share"] == 1
    card = (tmp_path / "run" / "README.md").read_text()
    assert "ladder/ladder.py" in card
    assert "library_name: recycle\n" in card


def test_a_ladder_of_one_cut_trains_and_says_that_it_is_meant_for_several(tmp_path, tiny_bert, capsys):
    tried = classes(tmp_path, tiny_bert)
    tried.fill(cut="50%")
    tried.fit("one", replace(SETTINGS, epochs=1))
    assert "a ladder is meant for several cuts, and reads 2 alone here" in capsys.readouterr().err
    sizes = json.loads((tmp_path / "one" / "ladder" / "config.json").read_text())
    assert (sizes["states"], sizes["blocks"]) == (1, 1)
