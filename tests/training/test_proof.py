"""A training is proved before its first epoch: it changes the head alone, and its RUN gives the same."""

import json
import random

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from recycle_cli.errors import ModelError
from recycle_cli.keys import Sample
from recycle_cli.models import NamedModel, TaskLayer
from recycle_cli.models.adapters import attach, lora
from recycle_cli.settings import (
    AdapterSettings,
    CorpusSettings,
    HeadSettings,
    ImageSettings,
    ModelSettings,
    PrecomputeSettings,
    TrainingSettings,
)
from recycle_cli.training import Setup, prove_training
from recycle_cli.verbs.finetune import Job, finetune, finetune_heads
from recycle_cli.verbs.precompute import precompute
from tests.conftest import tiny_config
from tests.images import noise
from tests.models.architectures import DECODERS, ENCODERS
from tests.records import records, write_csv

pytestmark = pytest.mark.usefixtures("everything_is_proved")
LAYER = TaskLayer(labels=("a", "b", "c"))
SAMPLES = [Sample(str(number), {"text": text}) for number, text in enumerate(["good new data", "we", "old cell"])]


def setup_of(folder: object, cut: str = "2", settings: ModelSettings | None = None) -> Setup:
    model = NamedModel(settings or ModelSettings(str(folder), None, 16, device="cpu"))
    network = model.open(LAYER)
    split = network.split((cut,), "float32")
    split.freeze(cut)
    return Setup(model, network.loaded, split, cut, None)


def prove(setup: Setup, folder: object) -> None:
    prove_training(setup, LAYER, SAMPLES, folder)


@pytest.mark.parametrize(
    ("model_type", "cut"),
    [
        pytest.param(kind, cut, marks=() if cut == "2" or kind == "bert" else pytest.mark.long)
        for kind in ("bert", "gpt2", "albert", "xlnet", "squeezebert", "xlm", "ibert")
        for cut in ("0", "2", "4")
    ],
)
def test_a_proof_leaves_everything_as_it_was(make_tiny, tmp_path, model_type, cut):
    fields = (ENCODERS | DECODERS).get(model_type, {})
    setup = setup_of(make_tiny("model", tiny_config(model_type, **fields), bare=True), cut)
    model = setup.split.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state, files = torch.get_rng_state(), sorted(tmp_path.iterdir())
    prove(setup, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(one.grad is None for one in model.parameters())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(tmp_path.iterdir()) == files


@pytest.mark.parametrize("model_type", ["opt", "biogpt"])
@pytest.mark.parametrize("cut", ["2", "4"])
def test_a_layer_that_training_skips_at_the_cut_is_refused(make_tiny, tmp_path, model_type, cut):
    config = tiny_config(model_type, ffn_dim=48, word_embed_proj_dim=32, layerdrop=0.01)
    setup = setup_of(make_tiny("model", config, bare=True), cut)
    with pytest.raises(ModelError, match=rf"at which the rows of cut {cut} enter .* was skipped"):
        prove(setup, tmp_path)
    setup = setup_of(make_tiny("whole", tiny_config(model_type, ffn_dim=48, word_embed_proj_dim=32), bare=True), cut)
    prove(setup, tmp_path)


class Drawing(nn.Dropout):
    """Leaves out what it is given now and then, by a number drawn in one of many ways."""

    def __init__(self, draw) -> None:
        super().__init__(0.0)
        self.draw = draw

    def forward(self, x):
        return x * 0 if self.training and self.draw() < 1e-4 else x


OWN = torch.Generator().manual_seed(0), random.Random(0), np.random.default_rng(0), np.random.RandomState(0)


@pytest.mark.parametrize(
    "draw",
    [
        random.random,
        lambda: random.uniform(0, 1),
        np.random.rand,
        lambda: np.random.uniform(0, 1),
        lambda: float(torch.rand(2, generator=OWN[0])[0]),
    ],
)
def test_a_model_that_draws_from_another_generator_is_refused(tiny_bert, tmp_path, draw):
    setup = setup_of(tiny_bert)
    setup.split.model.dropout = Drawing(draw)
    state = random.getstate()
    with pytest.raises(ModelError, match="draws from a random generator of its own"):
        prove(setup, tmp_path)
    assert random.getstate() == state


@pytest.mark.parametrize("draw", [OWN[1].random, OWN[2].random, OWN[3].rand])
def test_a_model_that_holds_a_generator_is_refused_if_it_draws_from_it(tiny_bert, tmp_path, draw):
    """However seldom the draw has an effect."""
    setup = setup_of(tiny_bert)
    setup.split.model.dropout = Drawing(draw)
    setup.split.model.dropout.own = draw.__self__
    with pytest.raises(ModelError, match="draws from a random generator of its own"):
        prove(setup, tmp_path)
    setup.split.model.dropout = Drawing(lambda: 1)
    setup.split.model.dropout.own = draw.__self__
    prove(setup, tmp_path)


@pytest.mark.parametrize("draw", [one.random for one in OWN[1:3]])
def test_training_that_the_seed_does_not_repeat_is_refused(tiny_bert, tmp_path, draw):
    class Noisy(nn.Dropout):
        def forward(self, x):
            return x * (1 + draw()) if self.training else x

    setup = setup_of(tiny_bert)
    setup.split.model.dropout = Noisy(0.0)
    with pytest.raises(ModelError, match="other outputs for the same texts or images and the same --seed"):
        prove(setup, tmp_path)


class Counting(nn.Dropout):
    """Remembers its training in a plain attribute, and goes by it in eval."""

    trained = 0

    def forward(self, x):
        self.trained += self.training
        return x if self.training else x + self.trained


def test_a_model_that_remembers_its_training_is_refused(tiny_bert, tmp_path):
    setup = setup_of(tiny_bert)
    setup.split.model.dropout = Counting(0.0)
    with pytest.raises(ModelError, match="its RUN, saved and loaded, gives outputs"):
        prove(setup, tmp_path)


class Moving(nn.Dropout):
    """Keeps a running mean in training, which no checkpoint of the head holds."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.register_buffer("mean", torch.zeros(()), persistent=False)

    def forward(self, x):
        if self.training:
            self.mean += x.detach().mean()
        return x


class Reaching(nn.Dropout):
    """Adds one of the trunk's tables in training alone."""

    def __init__(self, table: nn.Parameter) -> None:
        super().__init__(0.0)
        self.__dict__["table"] = table

    def forward(self, x):
        return x + self.table.requires_grad_(True).mean() if self.training else x


def test_a_step_that_changes_more_than_the_head_is_refused(tiny_bert, tmp_path):
    setup = setup_of(tiny_bert)
    setup.split.model.dropout = Moving()
    with pytest.raises(ModelError, match=r"a step changes dropout\.mean, which is no part of the head"):
        prove(setup, tmp_path)


def test_a_loss_that_reaches_more_than_the_head_is_refused(tiny_bert, tmp_path):
    setup = setup_of(tiny_bert)
    setup.split.model.dropout = Reaching(setup.split.model.bert.embeddings.position_embeddings.weight)
    with pytest.raises(ModelError, match=r"the loss reaches bert\.embeddings\.position_embeddings\.weight, no part"):
        prove(setup, tmp_path)


def test_a_run_that_gives_something_else_is_refused(tiny_bert, tmp_path):
    setup = setup_of(tiny_bert)
    setup.split.model.classifier.register_forward_hook(lambda module, args, output: 2 * output)
    with pytest.raises(ModelError, match=r"its RUN, saved and loaded, gives outputs .* off"):
        prove(setup, tmp_path)


def test_a_run_that_cannot_be_saved_is_found_out_before_the_first_epoch(make_tiny, tmp_path):
    folder = make_tiny("model", tiny_config(), bare=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "output_attentions": True}))
    data = CorpusSettings((str(write_csv(tmp_path / "train.csv", records(20))),))
    job = Job(data, str(tmp_path / "run"), None, cut="2", tensorboard=False)
    with pytest.raises(ModelError, match="could not be saved after its training"):
        finetune(job, ModelSettings(str(folder), None, 16), TrainingSettings(epochs=1))
    assert not (tmp_path / "run").exists()


def test_whatever_a_models_files_raise_is_one_line(make_tiny, monkeypatch):
    class OddError(Exception):
        pass

    def odd(*args, **kwargs):
        raise OddError("first\nsecond")

    folder = make_tiny("model", tiny_config(), bare=True)
    monkeypatch.setattr(transformers.AutoModelForSequenceClassification, "from_pretrained", odd)
    with pytest.raises(ModelError, match=r"cannot be used: OddError: first$") as caught:
        NamedModel(ModelSettings(str(folder))).open(LAYER)
    assert isinstance(caught.value.__cause__, OddError)


ADAPTERS = [
    AdapterSettings("lora", rank=2),
    AdapterSettings("lora", rank=2, dropout=0.1, save="apart"),
    AdapterSettings("bottleneck", save="apart", width=4),
]


def prove_adapter(setup: Setup, adapter: AdapterSettings, folder: object) -> None:
    weights = attach(setup.loaded, setup.split, setup.cut, adapter)
    model = setup.split.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = {name: id(module) for name, module in model.named_modules()}
    prove_training(setup, LAYER, SAMPLES, folder, weights, adapter)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {name: id(module) for name, module in model.named_modules()} == modules


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda one: f"{one.kind}-{one.save}")
def test_a_head_with_an_adapter_is_proved_and_left_as_it_was(tiny_bert, tmp_path, adapter):
    prove_adapter(setup_of(tiny_bert), adapter, tmp_path)
    assert not list(tmp_path.iterdir())


def test_adapters_are_put_back_where_rows_have_their_width_in_the_middle(make_tiny, tmp_path):
    config = tiny_config("squeezebert", embedding_size=32)
    prove_adapter(setup_of(make_tiny("model", config, bare=True)), ADAPTERS[2], tmp_path)


def test_an_adapter_that_is_lost_in_the_run_is_refused(tiny_bert, tmp_path, monkeypatch):
    def forgetting(model):
        for name, module in lora._adapted(model):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())

    monkeypatch.setattr("recycle_cli.training.finish.merge", forgetting)
    with pytest.raises(ModelError, match=r"its RUN, saved and loaded, gives outputs .* off"):
        prove_adapter(setup_of(tiny_bert), ADAPTERS[0], tmp_path)


def test_every_kind_of_head_is_proved_once(tiny_bert, tmp_path, monkeypatch):
    corpus = CorpusSettings((str(write_csv(tmp_path / "train.csv", records(20))),))
    model = ModelSettings(str(tiny_bert), None, 16, device="cpu")
    precompute(corpus, str(tmp_path / "store"), model, PrecomputeSettings(cuts=("2",)))
    seen = []
    monkeypatch.setattr("recycle_cli.verbs.finetune.prove_training", lambda *given: seen.append(given[-1].kind))
    kinds = ["none", "lora", "none", "lora", "bottleneck"]
    heads = [
        HeadSettings(
            f"{number}",
            TrainingSettings(
                epochs=1, adapter=AdapterSettings(kind, rank=2, save="apart" if kind != "none" else "merged")
            ),
        )
        for number, kind in enumerate(kinds)
    ]
    finetune_heads(Job(corpus, str(tmp_path / "run"), str(tmp_path / "store"), tensorboard=False), model, heads)
    assert seen == ["none", "lora", "bottleneck"]


IMAGES = ImageSettings(weights="none", resize=(32,), crop=(32,))


@pytest.mark.parametrize("cut", ["0", "layer2"])
def test_a_traced_model_is_proved_and_left_as_it_was(tmp_path, cut):
    setup = setup_of(tmp_path, cut, ModelSettings("resnet18", device="cpu", images=IMAGES))
    before = {name: tensor.clone() for name, tensor in setup.split.model.state_dict().items()}
    prove_training(setup, LAYER, noise(4, 32, 32), tmp_path)
    after = setup.split.model.state_dict()
    assert all(torch.equal(after[name], one) for name, one in before.items())


def test_statistics_of_a_traced_trunk_that_move_are_refused(tmp_path):
    setup = setup_of(tmp_path, "layer2", ModelSettings("resnet18", device="cpu", images=IMAGES))
    kept = setup.split.model.layer3[0].bn1

    def touching(module, args):
        if module.training:
            setup.split.model.layer1[0].bn1.running_mean.add_(1)

    kept.register_forward_pre_hook(touching)
    with pytest.raises(ModelError, match=r"a step changes layer1\.0\.bn1\.running_mean, which is no part of the head"):
        prove_training(setup, LAYER, noise(4, 32, 32), tmp_path)


def test_a_graph_that_trains_otherwise_than_the_model_is_refused(tmp_path):
    """DenseNet's dropout is no module, so that a graph that was traced in eval has none."""
    setup = setup_of(tmp_path, "features.transition2", ModelSettings("densenet121", device="cpu", images=IMAGES))
    for module in setup.split.model.modules():
        if hasattr(module, "drop_rate"):
            module.drop_rate = 0.5
    with pytest.raises(ModelError, match=r"in training the head gives outputs .* off"):
        prove_training(setup, LAYER, noise(4, 32, 32), tmp_path)
