"""A RUN's folder: what may be written over, what is damaged, and a checkpoint that puts everything back."""

import json

import pytest
import torch

from recycle_cli import runs
from recycle_cli.errors import StorageError, StoreError, UsageError
from recycle_cli.runs.same_settings import same_settings
from recycle_cli.runtime.random_generators import Randomness
from recycle_cli.settings import AdapterSettings, TrainingSettings, decisive

CPU = torch.device("cpu")
SCALER = torch.amp.GradScaler("cpu", enabled=False)


def trained(seed, steps=3, make=torch.optim.AdamW, **options):
    """Weights and an optimizer after a few steps."""
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()}
    optimizer = make([{"params": [weights["b"]]}, {"params": [weights["a"]], "weight_decay": 0.1}], lr=0.01, **options)
    for _ in range(steps):
        sum(weight.square().sum() for weight in weights.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return weights, optimizer


def draw(randomness):
    with randomness.drawing():
        return torch.rand(4)


SHAPES = {"a": (3, 4), "b": (5,)}


OPTIMIZERS = {
    "adamw": {},
    "sgd": {"make": torch.optim.SGD, "momentum": 0.9},
    "sgd without momentum": {"make": torch.optim.SGD},
}


@pytest.mark.parametrize("own", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_checkpoint_puts_everything_back(tmp_path, own):
    weights, optimizer = trained(0, **own)
    progress = runs.State(epoch=1, batch=2, step=9, best={"loss": 0.5}, lines=11)
    drawn, restored = Randomness(5, CPU), Randomness(6, CPU)
    runs.save_state(tmp_path, progress, weights, optimizer, SCALER, drawn, {"seed": 1})
    other, fresh = trained(1, steps=1, **own)
    assert runs.load_state(tmp_path, other, fresh, SCALER, restored, {"seed": 1}) == progress
    assert torch.equal(draw(restored), draw(drawn))
    for _ in range(2):
        for pair in ((weights, optimizer), (other, fresh)):
            sum(weight.square().sum() for weight in pair[0].values()).backward()
            pair[1].step()
            pair[1].zero_grad()
        assert all(torch.equal(weights[name], other[name]) for name in SHAPES)


def test_a_damaged_checkpoint_is_named(tmp_path):
    runs.save_state(tmp_path, runs.State(), *trained(0), SCALER, Randomness(0, CPU), {})
    path = tmp_path / "checkpoint" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"state\.safetensors is damaged.*--overwrite"):
        runs.load_state(tmp_path, *trained(0), SCALER, Randomness(0, CPU), {})


def test_a_finished_run_that_is_damaged_or_newer_is_refused(tmp_path):
    (tmp_path / "recycle.json").write_text("{")
    with pytest.raises(StoreError, match=r"recycle\.json is not readable"):
        runs.read_info(tmp_path)
    (tmp_path / "recycle.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(StoreError, match="has version 99"):
        runs.read_info(tmp_path)


def test_a_run_killed_before_its_first_checkpoint_can_be_taken_up_or_overwritten(tmp_path):
    place = runs.claim(str(tmp_path / "run"), overwrite=False, resume=False)
    with runs.begin(place, {"seed": 1}, resume=False):
        (place.output / "metrics.jsonl").write_text('{"step": 1}\n')
        (place.output / "tensorboard").mkdir()
        with pytest.raises(StorageError, match="another process trains this run"):
            runs.claim(str(place.output), overwrite=False, resume=True)
    with pytest.raises(UsageError, match="unfinished run; add --resume"):
        runs.claim(str(place.output), overwrite=False, resume=False)
    assert runs.claim(str(place.output), overwrite=False, resume=True) == place
    with (
        pytest.raises(UsageError, match="seed was 1 when the run began and is 2 now"),
        runs.begin(place, {"seed": 2}, resume=True),
    ):
        pass
    assert runs.claim(str(place.output), overwrite=True, resume=False) == place
    with runs.begin(place, {"seed": 2}, resume=False):
        assert [path.name for path in place.output.iterdir()] == ["checkpoint"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        runs.claim(str(tmp_path / "file"), overwrite=True, resume=False)
    with pytest.raises(StorageError, match="cannot be written"):
        runs.claim(str(tmp_path / "file" / "run"), overwrite=False, resume=False)


def test_an_option_that_a_run_is_older_than_had_its_default():
    now = decisive(TrainingSettings(adapter=AdapterSettings("lora")))
    older = {name: value for name, value in now.items() if name != "warmup_share"}
    older["adapter"] = {name: value for name, value in now["adapter"].items() if name != "layers"}
    same_settings(older, now)
    with pytest.raises(UsageError, match=r"warmup_share was 0\.06 when the run began and is 0\.5 now"):
        same_settings(older, {**now, "warmup_share": 0.5})
