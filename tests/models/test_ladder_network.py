"""A ladder by itself is its formula, in mixed precision too, and one of an earlier version is refused."""

import json
from dataclasses import asdict

import pytest
import torch

from recycle_cli.errors import StoreError
from recycle_cli.models.ladder import Ladder, Layout, OtherFormatError, new_ladder
from recycle_cli.models.ladder.network import Block, Shape
from recycle_cli.models.standardising import Measure, standardise_by
from recycle_cli.models.state_network import LADDER, Base, load_network
from recycle_cli.models.task_layer import TaskLayer
from recycle_cli.settings import LadderSettings


@pytest.mark.parametrize(
    ("states", "blocks", "joining"),
    [
        (4, 3, [[1], [2], [3]]),
        (7, 3, [[1, 2], [3, 4], [5, 6]]),
        (3, 1, [[1, 2]]),
        (2, 3, [[], [], [1]]),
        (1, 2, [[], []]),
    ],
)
def test_each_state_joins_once_and_in_order(states, blocks, joining):
    ladder = Ladder(Shape(states, 8, 8, blocks, 2))
    assert [list(ladder._joining(number)) for number in range(1, blocks + 1)] == joining


@pytest.mark.parametrize("together", [False, True])
def test_a_ladder_is_its_formula(together):
    torch.manual_seed(0)
    ladder = Ladder(Shape(3, 6, 8, 2, 4, queries=2, together=together)).eval()
    with torch.no_grad():
        ladder.mean.normal_()
        ladder.deviation.uniform_(0.5, 2)
        ladder.bias.normal_()
        ladder.gates.normal_()
    states, lengths = torch.randn(3, 2, 5, 6), torch.tensor([5, 3])
    inside = torch.arange(5) < lengths[:, None]
    z = [
        ((x - m) / d) @ w + b
        for x, m, d, w, b in zip(states, ladder.mean, ladder.deviation, ladder.down, ladder.bias, strict=True)
    ]
    h = z[0] + z[1] + z[2] if together else z[0]
    for number, block in enumerate(ladder.blocks):
        h = block(h, inside[:, None, None])
        if not together:
            gate = torch.sigmoid(ladder.gates[number])
            h = gate * h + (1 - gate) * z[number + 1]
    h = ladder.norm(h)
    each = [h[0], h[1, :3]]
    means = [[rows.mean(0), *(ladder.queries(rows).softmax(dim=0).T @ rows)] for rows in each]
    pooled = torch.stack([torch.cat(own) for own in means])
    expected = ladder.output(torch.tanh(ladder.dense(pooled)))
    torch.testing.assert_close(ladder(states, lengths), expected)
    torch.testing.assert_close(ladder(list(states), lengths), expected)
    other = states.clone()
    other[:, 1, 3:] = 100.0
    torch.testing.assert_close(ladder(other, lengths), expected)


def test_states_of_outputs_of_each_row_are_added_at_the_start():
    layout = Layout(((8,),) * 3)
    tags = new_ladder(TaskLayer(labels=("O", "B"), per_row=True), layout, LadderSettings(), 0)
    classes = new_ladder(TaskLayer(labels=("good", "bad")), layout, LadderSettings(), 0)
    assert (tags.shape.together, tags.gates.shape) == (True, (0,))
    assert (classes.shape.together, classes.gates.shape) == (False, (2,))


def test_a_block_is_a_convolution_attention_and_a_feed_forward_layer():
    torch.manual_seed(0)
    width, lengths = 64, [5, 3, 1]
    block = Block(width, dropout=0.5, attends=True).eval()
    convolution = torch.nn.Conv1d(width, width, 3, padding=1)
    attention = torch.nn.MultiheadAttention(width, num_heads=2, batch_first=True)
    with torch.no_grad():
        convolution.weight.copy_(block.convolution.weight.unflatten(1, (3, width)).transpose(1, 2))
        convolution.bias.copy_(block.convolution.bias)
        attention.in_proj_weight.copy_(block.attention.queries_keys_values.weight)
        attention.in_proj_bias.copy_(block.attention.queries_keys_values.bias)
    attention.out_proj = block.attention.output
    rows = torch.randn(3, 5, width)
    inside = torch.arange(5) < torch.tensor(lengths)[:, None]
    found = block(rows, inside[:, None, None])
    without = Block(width, dropout=0.5, attends=False).eval()
    without.load_state_dict({name: own for name, own in block.state_dict().items() if "attention" not in name})
    found_without = without(rows, inside[:, None, None])
    for place, length in enumerate(lengths):
        own = rows[place : place + 1, :length]
        mixed = own + torch.nn.functional.gelu(convolution(own.transpose(1, 2))).transpose(1, 2)
        attended = mixed + attention(mixed, mixed, mixed, need_weights=False)[0]
        for got, h in [(found, attended), (found_without, mixed)]:
            h = block.norm_mixed(h)
            expected = block.norm(h + block.outer(torch.nn.functional.gelu(block.inner(h))))
            torch.testing.assert_close(got[place, :length], expected[0])


@pytest.mark.parametrize("attends", [True, False])
def test_a_block_drops_some_of_what_it_adds_while_it_trains(attends):
    torch.manual_seed(0)
    rows, inside = torch.randn(2, 4, 32), torch.ones(2, 1, 1, 4, dtype=torch.bool)
    block = Block(32, dropout=0.5, attends=attends).train()
    assert not torch.equal(block(rows, inside), block(rows, inside))
    assert torch.equal(block.eval()(rows, inside), block(rows, inside))


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("norms", ["as the device has them", "in float32"])
def test_a_ladder_computes_in_mixed_precision(norms, together, monkeypatch):
    """CUDA's norms give float32 there, the CPU's bfloat16."""
    torch.manual_seed(0)
    ladder = Ladder(Shape(3, 6, 32, 2, 4, queries=2, together=together))
    states, lengths = torch.randn(3, 2, 5, 6), torch.tensor([5, 3])
    expected = ladder.eval()(states, lengths)
    if norms == "in float32":
        normed = torch.nn.LayerNorm.forward
        monkeypatch.setattr(torch.nn.LayerNorm, "forward", lambda own, rows: normed(own, rows).float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ladder(states, lengths)
        found.float().sum().backward()
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.1)
    assert torch.isfinite(ladder.down.grad).all()


def test_a_ladder_of_an_earlier_version_is_refused_by_name(tmp_path):
    Ladder(Shape(2, 4, 8, 1, 2)).save(tmp_path)
    sizes = json.loads((tmp_path / "config.json").read_text())
    assert Ladder.load(tmp_path).shape == Shape(2, 4, 8, 1, 2)
    del sizes["together"]  # ladders had none of these at first
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    assert Ladder.load(tmp_path).shape == Shape(2, 4, 8, 1, 2)
    del sizes["format"]
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    with pytest.raises(OtherFormatError, match="the ladder has format 1, and this version reads format 2"):
        Ladder.load(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ladder").symlink_to(tmp_path)
    (tmp_path / "base.json").write_text(json.dumps(asdict(Base({}, {}, [], []))))
    with pytest.raises(StoreError, match=r"ladder: the ladder has format 1, .*; train the run again"):
        load_network(tmp_path / "run", LADDER)


def test_the_last_block_alone_attends():
    ladder = Ladder(Shape(4, 8, 8, 3, 2))
    assert [block.attention is not None for block in ladder.blocks] == [False, False, True]


def test_a_channel_that_is_always_the_same_stays_finite():
    ladder, measure = Ladder(Shape(2, 4, 8, 1, 2)), Measure()
    states = torch.randn(2, 50, 6, 4) * 3 + 5
    states[0, :, :, 1] = 7.0
    measure.add(states.flatten(1, 2))
    standardise_by(ladder, measure.mean, measure.deviation)
    torch.testing.assert_close(ladder.mean[1], states[1].flatten(0, 1).mean(0), rtol=1e-4, atol=1e-4)
    assert float(ladder.deviation[0, 1]) > 0.01
    assert torch.isfinite(ladder(states, torch.full((50,), 6))).all()
