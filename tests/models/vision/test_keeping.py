"""A step of the head changes exactly the head, and a model that would not keep to it is refused by name."""

import copy

import pytest
import torch
import transformers

from recycle_cli.errors import ModelError
from recycle_cli.models.eval_mode import evaluating
from recycle_cli.models.vision.modules import ModuleCutter
from tests.models.vision.test_transformers import FAMILIES, SIDE, tiny

LEVIT = {"hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2], "depths": [2, 1, 2], "key_dim": [4, 4, 4]}
BEIT = {**FAMILIES["beit"], "use_shared_relative_position_bias": True}


def levit():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.LevitConfig(**LEVIT, image_size=64, num_labels=3)
        return transformers.LevitForImageClassification(config).eval(), 64


def shared():
    return tiny("beit", **{key: BEIT[key] for key in ["use_shared_relative_position_bias"]}), SIDE


BUILDERS = {
    "levit": levit,
    "beit": shared,
    **{name: lambda name=name: (tiny(name), SIDE) for name in ("vit", "resnet", "swin")},
}


def passes_of(model):
    counted = []
    model.register_forward_hook(lambda *_: counted.append(1))
    return counted


@pytest.mark.parametrize("family", BUILDERS)
def test_after_a_step_exactly_the_head_has_changed_and_eval_is_the_whole_models(family):
    """Against a fresh model of the same weights: it has kept nothing from a pass before the step."""
    model, side = BUILDERS[family]()
    fresh = copy.deepcopy(model)
    cutter = ModuleCutter(model, (3, side, side))
    cut = cutter.resolve("50%").name
    cutter.check(cut)
    images = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(1))
    before = {key: one.clone() for key, one in model.state_dict().items()}
    with evaluating(model), torch.no_grad():
        cutter.full(images)
        rows = cutter.trunk([cut])(images)[cut]
    model.train()
    for module in cutter.trunk_modules(cut):
        module.training = False
    head = dict(cutter.head_tensors(cut))
    optimizer = torch.optim.SGD([one for one in head.values() if isinstance(one, torch.nn.Parameter)], lr=0.1)
    with evaluating(model), torch.no_grad():
        cutter.head(cut)(rows)
    cutter.head(cut)(rows).square().sum().backward()
    optimizer.step()
    moved = {key for key, one in model.state_dict().items() if not torch.equal(one, before[key])}
    assert {key for key in moved if not key.endswith("num_batches_tracked")} <= head.keys()
    assert {key for key, one in head.items() if isinstance(one, torch.nn.Parameter) and one.grad is None} == set()
    fresh.load_state_dict(model.state_dict())
    with evaluating(model), torch.no_grad():
        theirs = fresh(pixel_values=images).logits
        assert float((cutter.full(images) - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())
        assert float((cutter.head(cut)(rows) - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


def test_the_trunk_of_levit_has_its_attention_biases():
    model, side = levit()
    cutter = ModuleCutter(model, (3, side, side))
    cut = cutter.resolve("50%").name
    in_eval = {key for key, _ in cutter.head_tensors(cut)} | {key for key, _ in cutter.trunk_tensors(cut)}
    assert {key for key, _ in model.named_parameters()} <= in_eval


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 1)
        self.scale = torch.nn.Parameter(torch.ones(3, 1, 1))
        self.kept = None

    def forward(self, rows):
        return self.conv(rows) * self.scale


class Caching(Block):
    def forward(self, rows):
        if self.kept is None:
            self.kept = self.scale.detach() * 2
        return self.conv(rows) * self.kept


class OnlyInTraining(Block):
    def forward(self, rows):
        return self.conv(rows) * self.scale if self.training else self.conv(rows)


class Counting(Block):
    def __init__(self):
        super().__init__()
        self.cached = {}

    def forward(self, rows):
        scale = self.cached.setdefault("scale", self.scale * 1.0)
        return self.conv(rows) * scale.detach()


class Net(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.blocks = torch.nn.ModuleList(kind() for _ in range(3))
        self.classifier = torch.nn.Linear(3, 2)

    def forward(self, pixel_values):
        rows = pixel_values
        for block in self.blocks:
            rows = block(rows)
        logits = self.classifier(rows.mean((2, 3)))
        return transformers.modeling_outputs.ImageClassifierOutput(logits=logits)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Caching, "keep numbers that a step of the head makes stale"),
        (Counting, "keep numbers that a step of the head makes stale"),
        (OnlyInTraining, r"uses blocks\.1\.scale in training alone"),
    ],
)
def test_a_model_that_would_train_otherwise_is_refused(kind, why):
    torch.manual_seed(0)
    cutter = ModuleCutter(Net(kind).eval(), (3, 8, 8))
    before = {key: one.clone() for key, one in cutter.model.state_dict().items()}
    with pytest.raises(ModelError, match=why):
        cutter.check("blocks.0")
    assert all(torch.equal(one, before[key]) for key, one in cutter.model.state_dict().items())


def test_the_step_that_is_tried_leaves_no_trace():
    torch.manual_seed(0)
    model = Net(Block).train()
    cutter = ModuleCutter(model, (3, 8, 8))
    before, number = {key: one.clone() for key, one in model.state_dict().items()}, torch.random.get_rng_state()
    cutter.check("blocks.1")
    assert all(torch.equal(one, before[key]) for key, one in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(one.grad is None for one in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), number)


@pytest.mark.parametrize("family", ["vit", "swin", "resnet", "convnext"])
def test_opening_takes_no_more_than_five_passes(family):
    """A head or trunk counts as a pass, though it is a part of one; a pass that ends early is counted by its start."""
    model = tiny(family)
    counted = []
    model.register_forward_pre_hook(lambda *_: counted.append(1))
    cutter = ModuleCutter(model, (3, SIDE, SIDE))
    assert len(counted) <= 5
    cutter.resolve("50%")
    assert len(counted) <= 8
    cutter.resolve("50%")
    assert len(counted) <= 8
