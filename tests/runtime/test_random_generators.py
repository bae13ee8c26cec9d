"""Masks that are drawn quickly are Bernoulli masks as any, and PyTorch's own come back."""

import threading
import warnings

import pytest
import torch

from recycle_cli.runtime.quick_masks import quick_masks


def mask(p, *shape, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return torch.empty(shape, dtype=dtype).bernoulli_(p)


@pytest.mark.parametrize("p", [1e-4, 0.1, 0.5, 0.9, 0.9999])
def test_ones_come_as_often_as_asked_and_where_chance_has_it(p):
    with quick_masks():
        drawn = mask(p, 1000, 1003)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    deviation = (p * (1 - p) / drawn.numel()) ** 0.5
    assert abs(drawn.double().mean() - p) < 5 * deviation + 2**-17
    for step in (1, 2, 3, 4, 1003):  # lanes of one draw, neighbours, rows
        flat = drawn.flatten().double() - p
        together = (flat[step:] * flat[:-step]).mean()
        assert abs(together) < 5 * p * (1 - p) / drawn.numel() ** 0.5


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_certainty_is_certain(p):
    with quick_masks():
        assert (mask(p, 50_000) == p).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.bool, torch.int64])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7, 3), (4, 5, 6)])
def test_every_shape_and_dtype_is_filled(shape, dtype):
    with quick_masks():
        drawn = torch.full(shape, 9).to(dtype).bernoulli_(0.5)
        apart = torch.full((*shape, 2), 9).to(dtype)[..., 1].bernoulli_(0.5)
    assert drawn.shape == apart.shape == shape
    assert ((drawn == 0) | (drawn == 1)).all()
    assert ((apart == 0) | (apart == 1)).all()


def test_a_seed_gives_the_same_masks_and_a_state_the_ones_that_follow():
    with quick_masks():
        first, state = mask(0.5, 999), torch.get_rng_state()
        second = torch.empty(999).bernoulli_(0.5)
        assert torch.equal(first, mask(0.5, 999))
        torch.set_rng_state(state)
        assert torch.equal(second, torch.empty(999).bernoulli_(0.5))
    assert not torch.equal(first, second)


def test_a_generator_of_the_callers_own_is_the_one_drawn_from():
    own = torch.Generator().manual_seed(3)
    with quick_masks():
        before = torch.get_rng_state()
        drawn = torch.empty(500).bernoulli_(0.5, generator=own)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(drawn, torch.empty(500).bernoulli_(0.5, generator=own.manual_seed(3)))


def test_an_impossible_probability_is_refused():
    with quick_masks(), pytest.raises(RuntimeError, match=r"p=1\.5"):
        torch.empty(3).bernoulli_(1.5)


def test_dropout_and_attention_draw_them():
    plain = mask(0.9, 64, 64)
    rows = torch.ones(2, 4, 16, 8)
    with quick_masks():
        quick = mask(0.9, 64, 64)
        torch.manual_seed(0)
        assert torch.equal(torch.nn.functional.dropout(torch.ones(64, 64), 0.1) > 0, quick > 0)
        torch.manual_seed(0)
        attended = torch.nn.functional.scaled_dot_product_attention(rows, rows, rows, dropout_p=0.5)
    torch.manual_seed(0)
    assert not torch.equal(attended, torch.nn.functional.scaled_dot_product_attention(rows, rows, rows, dropout_p=0.5))
    assert not torch.equal(plain, quick)


def test_a_build_that_tells_of_the_kernel_before_is_not_heard(monkeypatch, recwarn):
    """PyTorch tells once a process, and some builds at import."""
    plain = torch.library.Library.impl

    def telling(self, *arguments, **options):
        warnings.warn("Warning only once for all operators, other operators may also be overridden.", stacklevel=1)
        plain(self, *arguments, **options)

    monkeypatch.setattr(torch.library.Library, "impl", telling)
    with quick_masks():
        torch.empty(9).bernoulli_(0.5)
    assert not recwarn.list


def test_a_kernel_that_cannot_be_put_in_place_leaves_nothing_behind(monkeypatch):
    own = mask(0.5, 999)
    with monkeypatch.context() as patch:
        patch.setattr(torch.library.Library, "impl", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError), quick_masks():
            pass
    with quick_masks():
        assert not torch.equal(mask(0.5, 999), own)
    assert torch.equal(mask(0.5, 999), own)


def test_pytorchs_own_masks_come_back_with_the_last_block():
    own = mask(0.5, 999)
    entered, leave = threading.Event(), threading.Event()

    def other():
        with quick_masks():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with quick_masks():
        thread.start()
        assert entered.wait(10)
        with quick_masks():
            quick = mask(0.5, 999)
    assert torch.equal(mask(0.5, 999), quick)
    leave.set()
    thread.join()
    assert torch.equal(mask(0.5, 999), own)
    assert not torch.equal(own, quick)
