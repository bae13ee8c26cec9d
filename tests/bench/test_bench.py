"""A bench gives the figures it names, sets like against like, and judges bars and older figures by their spread."""

import json
import os
import signal
import time
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recycle_cli.batches import Shuffled
from recycle_cli.bench.compare import read_figures, worse
from recycle_cli.bench.epoch import slice_of
from recycle_cli.bench.figures import Figure, figures_of, higher_is_better
from recycle_cli.bench.layout import Comparison, Layout, layout
from recycle_cli.bench.memory import PeakMemory
from recycle_cli.bench.timing import WARM_UP, Run, Unavailable, interleaved
from recycle_cli.bench.worker import Worker
from recycle_cli.errors import DataError, RecycleError, UsageError
from recycle_cli.settings import BenchSettings
from recycle_cli.settings.measuring import VERBS
from tests.records import records, write_csv

SMALL = ("--limit", 64, "--max-length", 32, "--batch-size", 8, "--batches", 1, "--repetitions", 2)
CPU = torch.device("cpu")

NAMES = {
    "precompute.time_vs_bare_trunk",
    "precompute.speedup_vs_plain_loop",
    "read.single.time_vs_memmap",
    "read.batch32.time_vs_memmap",
    "read.batch256.time_vs_memmap",
    "finetune.time_vs_bare_head",
    "finetune.speedup_vs_full",
    "finetune.speedup_vs_frozen",
    "finetune.speedup_vs_trainer_full",
    "finetune.speedup_vs_trainer_frozen",
    "finetune.speedup_vs_map_trainer",
    "finetune.lora.speedup_vs_full",
    "finetune.lora.speedup_vs_store",
    "finetune.lora.store.epoch_seconds",
    "predict.speedup_vs_full",
    "predict.at_100%.speedup_vs_full",
    "finetune.store.epoch_seconds",
    "precompute.recycle.bytes",
}


@pytest.fixture(scope="module")
def everything(recycle, tmp_path_factory):
    """The report of a small bench of all verbs on made-up data, and the picture it drew."""
    place = tmp_path_factory.mktemp("bench")
    bars = ("--require", "finetune.speedup_vs_full>0", "--require", "precompute.recycle.bytes > 1e3")
    return recycle.json("bench", "all", *SMALL, *bars, "--plot", "bench.png", cwd=place), place


def known(cuts=("50%",)):
    return [name for verb in VERBS for name in layout(verb, cuts).names()]


def test_names_that_scripts_rely_on_are_there_and_are_unique():
    assert set(known()) >= NAMES
    assert len(known()) == len(set(known()))


def test_the_first_cut_has_plain_names_and_the_others_say_where():
    names = known(("25%", "75%"))
    assert {"finetune.speedup_vs_full", "finetune.at_75%.speedup_vs_full", "predict.at_75%.store.seconds"} <= set(names)
    assert not [name for name in names if "at_25%" in name]


def test_a_bench_measures_every_figure_it_names_and_nothing_else(everything):
    report, _ = everything
    assert set(report["figures"]) == set(known())
    for name, figure in report["figures"].items():
        assert figure["median"] is not None, (name, figure["note"])
        assert figure["low"] <= figure["median"] <= figure["high"]
        assert figure["repetitions"] == 2
        if "peak" not in name and name != "precompute.bare_trunk.bytes":
            assert figure["low"] > 0, name


def test_a_bench_says_on_what_it_was_made(everything):
    report, _ = everything
    assert report["settings"]["corpus"] == report["settings"]["model"] == "synthetic"
    assert report["settings"]["records"] == 64
    assert report["machine"]["threads"] == 1
    assert {"recycle", "torch", "transformers", "accelerate"} <= set(report["versions"])


def test_the_picture_is_drawn(everything):
    _, place = everything
    assert (place / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_rates_follow_from_times(everything):
    figures = everything[0]["figures"]
    store = {name: figures[f"finetune.store.{name}"]["median"] for name in ("seconds", "epoch_seconds")}
    assert store["epoch_seconds"] == pytest.approx(store["seconds"] * 64 / 8)
    assert figures["precompute.recycle.bytes"]["median"] > 64 * 128 * 2


def test_a_bench_on_a_corpus_without_labels_and_a_model_of_ones_own(recycle, tmp_path, tiny_bert):
    write_csv(tmp_path / "texts.csv", [{"text": record["text"]} for record in records(40)])
    report = recycle.json(
        "bench", "precompute", "--corpus", "texts.csv", "--model", tiny_bert, *SMALL, "--cut", 1, cwd=tmp_path
    )
    assert report["settings"]["records"] == 40
    assert report["settings"]["cuts"] == ["1"]
    assert report["settings"]["batch_tokens"] > 0, "what was used where none was asked for"
    assert set(report["figures"]) == set(layout("precompute", ["1"]).names())


@pytest.mark.long
def test_contention_sets_every_verb_beside_busy_processes(recycle, tmp_path):
    report = recycle.json("bench", "contention", *SMALL, "--repetitions", 1, cwd=tmp_path)
    figures = report["figures"]
    assert set(figures) == set(layout("contention", ["50%"]).names())
    for name, one in figures.items():
        assert one["median"] > 0, (name, one["note"])
    for verb in ("precompute", "finetune", "predict", "trainer_full", "map_trainer"):
        alone, beside = (figures[f"contention.{verb}.{group}.seconds"]["median"] for group in ("alone", "beside_1"))
        assert figures[f"contention.{verb}.beside_1.slowdown"]["median"] == pytest.approx(beside / alone)
    ours, theirs = (figures[f"contention.{name}.beside_2.seconds"]["median"] for name in ("finetune", "trainer_full"))
    assert figures["contention.finetune.beside_2.speedup_vs_trainer_full"]["median"] == pytest.approx(theirs / ours)
    assert not higher_is_better("contention.finetune.beside_1.slowdown")
    assert "GOMP_SPINCOUNT" in report["machine"]["thread_settings"]


@pytest.mark.long
def test_a_worker_measures_in_its_own_environment_and_its_end_is_told():
    worker = Worker(in_environment, None, {**os.environ, "GOMP_SPINCOUNT": "77"})
    assert worker.run("spin", 3) == Run(77.0, 3)
    assert os.environ.get("GOMP_SPINCOUNT") != "77"
    with pytest.raises(DataError, match="no such corpus"):
        worker.run("refused", 0)
    assert worker.run("spin", 4).samples == 4, "a failure ends nothing"
    with pytest.raises(RecycleError, match=r"the process that measured killed has ended .* give a smaller"):
        worker.run("killed", 0)


def in_environment(subject):
    def refused(repetition):
        raise DataError("no such corpus")

    return {
        "spin": lambda repetition: Run(float(os.environ["GOMP_SPINCOUNT"]), repetition),
        "refused": refused,
        "killed": lambda repetition: os.kill(os.getpid(), signal.SIGKILL),
    }


@pytest.mark.long
def test_trainings_whose_layers_freeze_are_set_against_all_baselines(recycle, tiny_bert, tmp_path):
    """In place and kept they take the same steps; a static cut freezes from the first on; a shorter one has no more
    epochs."""
    options = ("--model", tiny_bert, "--limit", 64, "--max-length", 16, "--batch-size", 8, "--batches", 4)
    options += ("--repetitions", 2, "--dtype", "float32")
    figures = recycle.json("bench", "freezing", *options, cwd=tmp_path)["figures"]
    assert set(figures) == set(layout("freezing", ["50%"]).names())
    median = {name: one["median"] for name, one in figures.items()}
    assert median["freezing.in_place.evaluation_loss"] == pytest.approx(
        median["freezing.kept.evaluation_loss"], abs=1e-4
    )
    assert median["freezing.kept.advance_seconds"] > 0 < median["freezing.kept.write_seconds"]
    assert median["freezing.in_place.write_seconds"] == median["freezing.full.advance_seconds"] == 0
    assert median["freezing.shorter.epochs"] <= median["freezing.full.epochs"] == 4


@pytest.mark.long
def test_a_server_with_all_in_its_store_is_set_against_one_without(recycle, tiny_bert, tmp_path):
    pytest.importorskip("fastapi")
    write_csv(tmp_path / "texts.csv", [{"text": record["text"]} for record in records(80)])
    options = ("--corpus", "texts.csv", "--model", tiny_bert, *SMALL)
    figures = recycle.json("bench", "serve", *options, cwd=tmp_path)["figures"]
    assert set(figures) == set(layout("serve", ["50%"]).names())
    for name, one in figures.items():
        assert one["median"] > 0, (name, one["note"])
    hits, plain = (figures[f"serve.{name}.samples_per_second"]["median"] for name in ("hits", "no_store"))
    assert figures["serve.speedup_vs_no_store"]["median"] == pytest.approx(hits / plain, rel=0.5)


@pytest.mark.long
def test_trainings_by_several_processes_send_what_trains(recycle, tiny_bert, tmp_path):
    options = ("--model", tiny_bert, "--limit", 64, "--max-length", 16, "--batch-size", 8, "--batches", 2)
    options += ("--repetitions", 1, "--epochs", 4)
    figures = recycle.json("bench", "finetune", "--ranks", "1,2", *options, cwd=tmp_path)["figures"]
    assert set(figures) == set(layout("ranks", ["50%"], ranks=(1, 2)).names())
    median = {name: one["median"] for name, one in figures.items()}
    assert median["ranks.1.full.gradient_bytes"] == 0
    sent = {way: median[f"ranks.2.{way}.gradient_bytes"] for way in ("full", "frozen", "store", "kept")}
    assert sent["store"] == sent["frozen"] < sent["kept"] < sent["full"]
    assert median["ranks.2.store.gradient_seconds"] > 0 < median["ranks.2.store.output_bytes"]


def test_only_finetune_is_measured_by_several_processes(recycle):
    done = recycle("bench", "predict", "--ranks", "1,2")
    assert done.code == 2
    assert "--ranks: only finetune is measured by several processes" in done.err
    assert "expected different numbers from 1 on" in recycle("bench", "finetune", "--ranks", "2,2").err


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_heads_together_are_set_against_heads_apart(recycle, tiny_bert, tmp_path, codec):
    write_csv(tmp_path / "texts.csv", [{"text": record["text"]} for record in records(40)])
    cuts = ("--cut", "50%", "--cut", "100%", "--codec", codec)
    options = ("--corpus", "texts.csv", "--model", tiny_bert, *SMALL, *cuts)
    report = recycle.json("bench", "heads", *options, cwd=tmp_path)
    assert set(report["figures"]) == set(layout("heads", ["50%", "100%"]).names())
    assert {"heads.speedup_vs_apart", "heads.at_100%.speedup_vs_apart"} <= set(report["figures"])
    for way in ("together", "apart"):
        figures = {
            name: report["figures"][f"heads.{way}.{name}"]["median"] for name in ("seconds", "samples_per_second")
        }
        # Of a compressed store whole epochs are measured: a window decodes chunks of many samples.
        trained = 8 * (8 if codec == "none" else 40)
        assert figures["seconds"] * figures["samples_per_second"] == pytest.approx(trained, rel=0.5)
    assert report["settings"]["codec"] == codec


def test_a_missed_bar_is_exit_6_and_still_one_object(recycle):
    done = recycle("bench", "read", *SMALL, "--require", "read.single.time_vs_memmap<=0.001", "--json")
    assert done.code == 6
    error = done.json["error"]
    assert error["kind"] == "BarError"
    assert "read.single.time_vs_memmap is " in error["message"]
    assert "<= 0.001 was required" in error["message"]
    assert done.err.splitlines()[-1] == f"recycle: {error['message']}"
    assert done.json["figures"]


def test_older_figures_are_compared(recycle, everything, tmp_path):
    old = {"figures": everything[0]["figures"]}
    impossible = {"median": 1e15, "low": 1e15, "high": 1e15, "repetitions": 5, "unit": "samples/s", "note": None}
    old["figures"] = {**old["figures"], "read.single.store.samples_per_second": impossible}
    (tmp_path / "old.json").write_text(json.dumps(old))
    report = recycle.json("bench", "read", *SMALL, "--compare", tmp_path / "old.json")
    assert "read.single.store.samples_per_second" in [one["name"] for one in report["worse"]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("read", "--require", "read.nothing>=1"), "read.nothing is not measured"),
        (("read", "--require", "finetune.speedup_vs_full>=1"), "is not measured by this bench"),
        (("read", "--require", "__import__('os')>=1"), "expected a figure, one of"),
        (("read", "--require", "read.single.time_vs_memmap"), "expected a figure, one of"),
        (("read", "--codec", "lz4"), "heads or precompute alone"),
        (("all", "--require", "heads.speedup_vs_apart>=1"), "is not measured by this bench"),
        (("all", "--cut", "0"), "freezes nothing"),
        (("all", "--cut", "2", "--cut", "2"), "once"),
        (("read", "--plot", "a.png"), "--plot shows training"),
        (("all", "--plot", "a.gif"), ".png, .svg"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(recycle, arguments, said):
    started = time.perf_counter()
    done = recycle("bench", *arguments, "--json")
    assert done.code == 2
    assert said in done.json["error"]["message"]
    assert time.perf_counter() - started < 30


def test_only_what_left_its_spread_on_the_wrong_side_is_worse():
    def spread(low, high):
        return Figure((low + high) / 2, low, high, 5, "x")

    old = {name: spread(10, 12) for name in ("a.seconds", "b.seconds", "c.seconds", "d.speedup_vs_full", "e.seconds")}
    new = {
        "a.seconds": spread(13, 14),
        "b.seconds": spread(11, 20),
        "c.seconds": spread(1, 2),
        "d.speedup_vs_full": spread(5, 6),
        "f.seconds": spread(1, 2),
    }
    assert [one.name for one in worse(old, new)] == ["d.speedup_vs_full", "a.seconds"]
    assert worse(old, new)[0].change_share == pytest.approx(-0.5)


def test_what_is_no_bench_is_refused(tmp_path):
    for text in ("", "[]", "{}", '{"figures": 3}', '{"figures": {"a": 1}}'):
        (tmp_path / "old.json").write_text(text)
        with pytest.raises(DataError, match="expected the JSON object"):
            read_figures(str(tmp_path / "old.json"))
    with pytest.raises(DataError, match="No such file"):
        read_figures(str(tmp_path / "none.json"))


def test_figures_survive_json(tmp_path):
    figures = {"a": Figure(1.5, 1.4, 1.6, 5, "x"), "b": Figure(None, None, None, 0, "x", "why")}
    (tmp_path / "old.json").write_text(json.dumps({"figures": {name: asdict(one) for name, one in figures.items()}}))
    assert read_figures(str(tmp_path / "old.json")) == figures


def test_variants_take_turns_after_one_to_warm_up():
    turns = []

    def runner(name):
        return lambda repetition: turns.append((name, repetition)) or Run(1.0, 1)

    runs = interleaved({"a": runner("a"), "b": runner("b"), "c": Unavailable("why")}, 6, CPU, lambda name: None)
    repetitions = [WARM_UP, 0, 1, 2, 3, 4, 5]
    assert [repetition for _, repetition in turns] == [one for one in repetitions for _ in "ab"]
    blocks = {"".join(name for name, of in turns if of == one) for one in repetitions[1:]}
    assert blocks == {"ab", "ba"}  # each once a repetition, and none always first
    assert [len(runs["a"]), runs["c"]] == [6, Unavailable("why")]


def test_ratios_are_taken_within_a_repetition():
    """A machine that slows down for one repetition slows both: the ratios stay, though the times do not."""
    one = Layout("read", ("x.ours", "x.other"), (Comparison("speedup", "x.ours", "x.other"),))
    runs = {"x.ours": [Run(1.0, 10), Run(5.0, 10)], "x.other": [Run(2.0, 10), Run(10.0, 10)]}
    found = figures_of(one, runs, 10)
    assert found["x.speedup_vs_other"] == Figure(2.0, 2.0, 2.0, 2, "x")
    assert found["x.ours.seconds"] == Figure(3.0, 1.0, 5.0, 2, "s")


def test_variants_of_unlike_work_are_compared_by_the_sample():
    one = Layout("predict", ("x.ours", "x.limit"), (Comparison("time", "x.ours", "x.limit"),))
    found = figures_of(one, {"x.ours": [Run(2.0, 20)], "x.limit": [Run(1.0, 20)]}, 20)
    assert found["x.time_vs_limit"].median == 2.0
    found = figures_of(one, {"x.ours": [Run(2.0, 40)], "x.limit": [Run(1.0, 20)]}, 20)
    assert found["x.time_vs_limit"].median == 1.0


def test_what_cannot_run_is_unknown_and_says_why():
    one = Layout("read", ("x.ours", "x.other"), (Comparison("speedup", "x.ours", "x.other"),))
    found = figures_of(one, {"x.ours": [Run(1.0, 1)], "x.other": Unavailable("needs accelerate")}, 1)
    assert found["x.other.seconds"] == Figure(None, None, None, 0, "s", "needs accelerate")
    assert found["x.speedup_vs_other"].note == "needs accelerate"


def test_without_accelerate_the_trainer_is_left_out(monkeypatch):
    from recycle_cli.bench import finetune

    monkeypatch.setattr(finetune, "find_spec", lambda name: None)
    found = finetune._trainers(None)
    assert list(found) == ["finetune.trainer_full", "finetune.trainer_frozen", "finetune.map_trainer"]
    assert all("recycle-cli[bench]" in one.reason for one in found.values())


def test_lora_is_left_out_without_peft_and_where_it_cannot_be(monkeypatch):
    from recycle_cli.bench import finetune

    images, texts = SimpleNamespace(images=True), SimpleNamespace(images=False)
    assert finetune._lora(images).reason == "only text models take adapters"

    def refuse(*args):
        raise UsageError("at cut 4 the head has no pretrained layer to adapt")

    frozen = []
    loaded, halves = SimpleNamespace(loaded=None), SimpleNamespace(cuts=("4",), freeze=frozen.append)
    last = SimpleNamespace(
        images=False, settings=BenchSettings(), load=lambda: loaded, split=lambda cuts, network: halves
    )
    monkeypatch.setattr(finetune, "attach", refuse)
    assert "no pretrained layer to adapt" in finetune._lora(last).reason
    assert frozen == ["4"], "the trunk stands still before an adapter is put on the head"
    monkeypatch.setattr(finetune, "find_spec", lambda name: None)
    assert "recycle-cli[adapters]" in finetune._lora(texts).reason


@pytest.mark.parametrize(
    ("name", "higher"),
    [("a.seconds", False), ("a.samples_per_second", True), ("a.speedup_vs_b", True), ("a.time_vs_b", False)],
)
def test_what_is_better(name, higher):
    assert higher_is_better(name) == higher


def test_a_slice_of_an_epoch_is_whole_batches_of_all_lengths():
    lengths = np.random.default_rng(0).integers(5, 200, 3000)
    slices = [slice_of(lengths, Shuffled(32, 0), 6, place) for place in (0.1, 0.5, 0.9)]
    for members in slices:
        assert len(members) == len(set(members.tolist())) == 6 * 32
        assert lengths[members].mean() == pytest.approx(lengths.mean(), rel=0.06)
    assert np.mean([lengths[members].mean() for members in slices]) == pytest.approx(lengths.mean(), rel=0.03)
    assert set(slices[0].tolist()).isdisjoint(slices[2].tolist())


def test_peak_memory_sees_what_was_held_and_freed_again():
    with PeakMemory(CPU) as peak:
        held = np.ones(96 << 20, np.uint8)
        time.sleep(0.2)
        del held
    assert peak.bytes is not None
    assert 90 << 20 < peak.bytes < 130 << 20
