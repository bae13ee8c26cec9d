"""A plan counts the corpus as it is, forecasts the bytes that are then written, and says when a store does not pay."""

import random

import numpy as np
import pytest

from recycle_cli.keys import Sample
from recycle_cli.models import default_max_length, load
from recycle_cli.plan import census as counting
from recycle_cli.plan.census import count, tokens_of
from recycle_cli.plan.cost import Line, epoch_of, fit, padded, pays_back_in
from recycle_cli.plan.verdict import verdict
from tests.records import records, write_csv

SMALL = ("--sample", 64, "--batch-size", 8, "--batches", 2, "--repetitions", 1, "--max-length", 16)


def texts(number, seed=0):
    draw = random.Random(seed)
    return [
        Sample(str(place), {"text": f"{place} " + "word " * max(1, round(20 * draw.lognormvariate(0, 0.6)))})
        for place in range(number)
    ]


def counted(samples):
    return count(samples, lambda number: None)


def tokens(census, longest=64):
    """One token a word, cut off at the longest text."""
    return np.array([min(longest, len(sample.fields["text"].split())) for sample in census.samples])


def test_contents_are_counted_once_and_records_each_time():
    samples = texts(300)
    found = counted([*samples, *samples[:100], *samples[:50]])
    assert (found.records, found.unique, found.halvings) == (450, 300, 0)
    assert {sample.id for sample in found.samples} == {sample.id for sample in samples}


def test_the_drawn_are_a_fair_sample_however_often_contents_repeat(monkeypatch):
    monkeypatch.setattr(counting, "DRAWN", 500)
    samples = texts(4000)
    found = counted([*samples, *samples[:10] * 200])
    assert len(found.samples) == len({sample.id for sample in found.samples}) == 500
    places = np.array([int(sample.id) for sample in found.samples])
    assert places.mean() == pytest.approx(2000, rel=0.1)


def test_more_contents_than_are_kept_are_estimated(monkeypatch):
    monkeypatch.setattr(counting, "KEPT", 1000)
    monkeypatch.setattr(counting, "DRAWN", 200)
    samples = texts(10_000)
    found = counted([*samples, *samples[:5000]])
    assert found.records == 15_000
    assert found.halvings > 0
    assert len(found.sizes) <= 1000
    assert found.unique == pytest.approx(10_000, rel=0.12)
    assert len(found.samples) == 200


def test_tokens_are_exact_where_all_were_counted():
    found = counted(texts(200))
    exact = tokens_of(found, tokens(found), 64)
    assert (exact.total, exact.error_share) == (tokens(found).sum(), 0.0)


def test_tokens_are_estimated_within_their_error(monkeypatch):
    samples = texts(5000)
    truth = sum(min(64, len(sample.fields["text"].split())) for sample in samples)
    monkeypatch.setattr(counting, "DRAWN", 400)
    found = counted(samples)
    guess = tokens_of(found, tokens(found), 64)
    assert 0 < guess.error_share < 0.02
    assert guess.total == pytest.approx(truth, rel=max(3 * guess.error_share, 1e-3))


def test_time_is_fitted_by_padded_tokens():
    line = fit([100, 200, 400], [1.5, 2.5, 4.5])
    assert line.seconds_a_batch == pytest.approx(0.5)
    assert line.seconds_a_token == pytest.approx(0.01)
    assert line.seconds(2, 1000) == pytest.approx(11)
    assert fit([100, 100], [1.0, 3.0]) == Line(0.0, 0.02)


@pytest.mark.parametrize("seconds", [[1.0, 3.0], [3.0, 1.0]])
def test_no_part_of_a_fit_is_negative(seconds):
    line = fit([100, 200], seconds)
    assert line.seconds_a_batch >= 0
    assert line.seconds_a_token >= 0
    assert line.seconds(2, 300) == pytest.approx(4.0)


def test_padding_counts():
    lengths = np.array([3, 5, 2])
    assert padded(lengths, [np.array([0, 1]), np.array([2])]) == [10, 2]
    epoch = epoch_of(np.full(64, 10), records=640, tokens_share=1.1, batch_size=32, seed=0)
    assert (epoch.batches, epoch.tokens) == (20, pytest.approx(7040))


@pytest.mark.parametrize(
    ("fill", "epoch", "other", "pays"),
    [(10, 5, 10, 3), (9, 5, 10, 2), (0.1, 5, 10, 1), (10, 5, 5, None), (1, 6, 5, None)],
)
def test_the_epoch_that_pays_back_is_the_first_in_which_less_was_spent(fill, epoch, other, pays):
    assert pays_back_in(fill, epoch, other) == pays
    if pays is not None:
        assert fill + pays * epoch < pays * other
        assert pays == 1 or fill + (pays - 1) * epoch >= (pays - 1) * other


@pytest.mark.parametrize(
    ("pays", "needed", "cache", "said"),
    [
        (2, 10, True, "cache: pays back in epoch 2 of 3"),
        (4, 10, False, "do not cache: pays back in epoch 4 of 3"),
        (None, 10, False, "do not cache: an epoch from the store is no faster"),
        (1, 2048, False, "do not cache: needs 2.0 KiB, 1.0 KiB are free"),
    ],
)
def test_the_verdict(pays, needed, cache, said):
    assert verdict(pays, 3, needed, 1024) == (cache, said)


@pytest.fixture(scope="module")
def planned(recycle, tmp_path_factory, tiny_bert):
    """A plan of a corpus with repeated contents and no labels, and where it lies."""
    place = tmp_path_factory.mktemp("plan")
    rows = [{"text": record["text"]} for record in records(400, longest=20)]
    write_csv(place / "texts.csv", [*rows, *rows[:100]])
    options = ("--model", tiny_bert, "--cut", "50%", "--cut", "100%", *SMALL)
    return recycle.json("plan", "texts.csv", *options, cwd=place), place


def test_a_plan_counts_and_forecasts(planned):
    plan, _ = planned
    assert (plan["records"], plan["unique_samples"], plan["tokens_error_share"]) == (500, 400, 0.0)
    assert [cut["blocks"] for cut in plan["cuts"]] == ["2", "4"]
    for cut in plan["cuts"]:
        for name in ("fill_seconds", "store_epoch_seconds", "frozen_epoch_seconds", "needed_bytes_per_second"):
            assert cut[name] > 0, name
        assert cut["verdict"].startswith("cache" if cut["cache"] else "do not cache")
    assert plan["full_epoch_seconds"] > 0
    assert plan["sample"] == {"counted": 400, "tried": 64}


@pytest.mark.parametrize("dtype", ["float16", "int8", "int4", "float32"])
def test_the_bytes_are_those_that_are_written(planned, recycle, tiny_bert, dtype):
    plan, place = planned
    options = ("--model", tiny_bert, "--cut", "50%", "--max-length", 16, "--dtype", dtype)
    made = recycle.json("precompute", "texts.csv", f"{dtype}.zarr", *options, cwd=place)
    assert plan["tokens"] == made["rows"]
    forecast = plan["cuts"][0]["bytes"][dtype]
    assert forecast == pytest.approx(
        plan["tokens"] * {"float16": 64, "int8": 36, "int4": 22, "float32": 128}[dtype], rel=0.2
    )
    written = sum(path.stat().st_size for path in (place / f"{dtype}.zarr").rglob("*") if path.is_file())
    # A store of short texts is small: its documents take 9 kB whatever its size.
    assert forecast == pytest.approx(written - 9_000, rel=0.03)


def test_a_plan_keeps_nothing(planned):
    _, place = planned
    assert {path.name for path in place.iterdir()} - {"float16.zarr", "int8.zarr", "int4.zarr", "float32.zarr"} == {
        "texts.csv"
    }


def test_every_state_can_be_planned(planned, recycle, tiny_bert):
    _, place = planned
    plan = recycle.json("plan", "texts.csv", "--model", tiny_bert, *SMALL, "--cut", "every:4", cwd=place)
    assert [cut["cut"] for cut in plan["cuts"]] == ["0", "4"]
    first, last = plan["cuts"]
    assert first["bytes"] == last["bytes"]
    assert first["fill_seconds"] > 0


@pytest.mark.parametrize(("arguments", "said"), [(("--limit", 10), "10 different records are too few")])
def test_what_cannot_be_planned_is_said(planned, recycle, tiny_bert, arguments, said):
    _, place = planned
    done = recycle("plan", "texts.csv", "--model", tiny_bert, *SMALL, *arguments, "--json", cwd=place)
    assert done.code == 2
    assert said in done.json["error"]["message"]


def test_layers_shows_the_cuts(recycle, tiny_bert):
    found = recycle.json("layers", tiny_bert, "--max-length", 16)
    assert [layer["cut"] for layer in found["layers"]] == ["0", "1", "2", "3", "4"]
    assert {layer["bytes_per_sample"] for layer in found["layers"]} == {16 * 32 * 2}
    shares = [layer["flops_share"] for layer in found["layers"]]
    assert shares == sorted(shares)
    done = recycle("layers", tiny_bert)
    assert done.code == 0
    assert "flops share" in done.err
    assert recycle.json("layers", tiny_bert)["max_length"] == default_max_length(load(str(tiny_bert), labels=None))


@pytest.mark.long
def test_heads_that_read_several_states_are_forecast_beside_the_cuts(recycle, tiny_bert, tmp_path):
    write_csv(tmp_path / "texts.csv", records(96))
    options = ("--model", tiny_bert, *SMALL, "--cut", "50%", "--states")
    found = recycle.json("plan", "texts.csv", *options, cwd=tmp_path)
    cut, ladder, pooled = found["heads"]
    assert [one["head"] for one in found["heads"]] == ["of a cut", "ladder", "pooled"]
    assert [one["cuts"] for one in found["heads"]] == ["2", "0,2,4", "0,1,2,3,4"]
    assert cut["bytes"] == found["cuts"][0]["bytes"]["float16"]
    assert pooled["bytes"] == 96 * 5 * 3 * 32 * 2
    assert ladder["bytes"] == pytest.approx(3 * cut["bytes"], rel=0.1)
    assert pooled["total_seconds"] == pytest.approx(pooled["fill_seconds"] + pooled["epoch_seconds"])
    assert all(one["verdict"] for one in found["heads"])
    assert "0,1,2,3,4" in recycle("plan", "texts.csv", *options, cwd=tmp_path).err
