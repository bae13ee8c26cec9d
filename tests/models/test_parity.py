"""full(x) == head(store(trunk(x))), for every architecture at every cut: the proof that the project rests on."""

from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
from torch import Tensor

from recycle_cli.models import SplitModel, split
from recycle_cli.models.forwards import watching
from recycle_cli.models.text.blocks import first
from recycle_cli.models.text.engine import Engine
from recycle_cli.models.text.passes import run_head, run_trunk
from tests.models.architectures import DECODERS, ENCODERS, random_model

LENGTHS = torch.tensor([11, 5, 2, 8])
WITHOUT_STATE_0 = {"xlm", "flaubert"}
"""Their blocks are of several modules, beside which the rows pass."""

every_architecture = pytest.mark.parametrize("model_type", [*ENCODERS, *DECODERS])


@cache
def parts(model_type: str) -> SplitModel:
    return split(random_model(model_type), ["every"], max_length=32, dtype="float32", state_0=True)


def engine_of(model: SplitModel) -> Engine:
    return model.full.__self__.engine


def batch_of(model: SplitModel, left: bool = False) -> dict[str, Tensor]:
    """Random tokens in a batch of unequal lengths, padded on one side; token types where the model takes them."""
    generator = torch.Generator().manual_seed(1)
    engine, longest = engine_of(model), int(LENGTHS.max())
    mask = (torch.arange(longest) < LENGTHS[:, None]).long()
    mask = mask.flip(1) if left else mask
    ids = torch.randint(5, engine.model.config.vocab_size, mask.shape, generator=generator)
    batch = {"input_ids": torch.where(mask.bool(), ids, engine.inputs.pad_id), "attention_mask": mask}
    if "token_type_ids" in engine.inputs.names and getattr(engine.model.config, "type_vocab_size", 0) > 1:
        batch["token_type_ids"] = torch.randint(2, mask.shape, generator=generator) * mask
    return batch


def stored(rows: Tensor, mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows as a store gives them back: rounded to its type, nothing but zeros beyond each sample's own."""
    return rows.clone().masked_fill(~mask.bool()[..., None], 0).to(dtype).float()


def error(one: Tensor, other: Tensor) -> float:
    """Largest difference, as a share of the largest value where that is above 1."""
    return float((one - other).abs().max() / one.abs().max().clamp_min(1))


@every_architecture
def test_every_state_is_a_cut(model_type):
    expected = ("1", "2", "3", "4") if model_type in WITHOUT_STATE_0 else ("0", "1", "2", "3", "4")
    model = parts(model_type)
    assert model.cuts == tuple(model.recipe.cuts) == expected
    assert len(set(model.recipe.cuts.values())) == len(expected)
    blocks = {name for name, _ in model.head_parameters("1")} | {name for name, _ in model.trunk_parameters("1")}
    for name, _ in model.trunk_parameters(expected[0]):
        assert name in blocks


@every_architecture
def test_right_padded(model_type):
    model = parts(model_type)
    batch = batch_of(model)
    with torch.no_grad():
        full, rows = model.full(batch), model.trunk(batch)
        for cut, values in rows.items():
            halves = model.head_from(cut)(stored(values, batch["attention_mask"]), LENGTHS)
            assert error(full, halves) <= 1e-5, cut


@every_architecture
def test_float16_store(model_type):
    """The output moves no further than random relative errors of float16's size move it."""
    model = parts(model_type)
    batch = batch_of(model)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        full, rows = model.full(batch), model.trunk(batch)
        for cut, values in rows.items():
            exact = stored(values, batch["attention_mask"])
            noise = 1 + 2**-11 * torch.sign(torch.randn(exact.shape, generator=generator))
            moved = error(full, model.head_from(cut)(exact * noise, LENGTHS))
            halves = model.head_from(cut)(stored(values, batch["attention_mask"], torch.float16), LENGTHS)
            assert error(full, halves) <= 4 * moved + 1e-5, cut


@every_architecture
def test_left_padded(model_type):
    """The two halves as they are called inside, since batches of the tool itself are padded on the right."""
    engine = engine_of(parts(model_type))
    batch = batch_of(parts(model_type), left=True)
    mask, inputs = batch["attention_mask"], engine.options(batch)
    with torch.no_grad():
        full, last = with_last_rows(engine, lambda: engine.model(**inputs)[0])
        cuts = [int(cut) for cut in parts(model_type).cuts]
        for cut, values in run_trunk(engine.model, engine.blocks, inputs, cuts).items():
            assert error(full, with_last_rows(engine, head_of(engine, cut, mask, values))[0]) <= 1e-5, cut
            if not engine.apart:
                _, halves = with_last_rows(engine, head_of(engine, cut, mask, stored(values, mask)))
                assert error(last[mask.bool()], halves[mask.bool()]) <= 1e-5, cut


@every_architecture
def test_gradients(model_type):
    """The head learns from stored rows what it learns with the frozen trunk in place."""
    model = parts(model_type)
    batch = batch_of(model)
    for cut in model.cuts:
        for parameter in model.model.parameters():
            parameter.requires_grad_(True)
        model.freeze(cut)
        rows = stored(model.trunk(batch)[cut], batch["attention_mask"])
        expected = gradients(model, cut, lambda: model.full(batch))
        got = gradients(model, cut, lambda rows=rows, cut=cut: model.head_from(cut)(rows, LENGTHS))
        assert expected
        for name in expected:
            assert error(expected[name], got[name]) <= 1e-5, (cut, name)


@pytest.mark.parametrize("model_type", ["bert", "mpnet", "modernbert", "llama"])
def test_a_head_computes_no_embeddings(model_type, monkeypatch):
    model = parts(model_type)
    engine, forward = engine_of(model), torch.nn.Embedding.forward
    assert engine.stem is not None
    words, looked_up = engine.model.get_input_embeddings(), []

    def noting(table: torch.nn.Embedding, ids: Tensor) -> Tensor:
        looked_up.append(table)
        return forward(table, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", noting)
    model.full(batch_of(model))
    assert words in looked_up
    looked_up.clear()
    model.head_from("2")(torch.randn(4, 11, engine.blocks[0].width), LENGTHS)
    assert words not in looked_up
    assert not set(looked_up) & set(engine.stem.module.modules())


def gradients(model: SplitModel, cut: str, compute: Callable[[], Tensor]) -> dict[str, Tensor]:
    model.model.zero_grad()
    compute().square().sum().backward()
    assert all(parameter.grad is None for _, parameter in model.trunk_parameters(cut))
    return {name: one.grad for name, one in model.head_parameters(cut) if one.grad is not None}


def head_of(engine: Engine, cut: int, mask: Tensor, rows: Tensor) -> Callable[[], Tensor]:
    inputs = engine.options(engine.inputs.stand_in(mask))
    return lambda: run_head(engine.model, engine.blocks, inputs, cut, rows, engine.stem)[0]


def with_last_rows(engine: Engine, compute: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """The logits, and the last block's rows at the batch's own tokens."""
    last, seen = engine.blocks[-1], []
    with watching(last.parts[-1].module, after=lambda args, kwargs, output: seen.append(last.turned(first(output)))):
        logits = compute()
    return logits, seen[0][:, : int(LENGTHS.max())]


@pytest.fixture(autouse=True, scope="module")
def forget_models() -> Iterator[None]:
    yield
    parts.cache_clear()
