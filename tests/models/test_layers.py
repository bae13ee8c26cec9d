"""The table of cuts: shares that a person can trust, and bytes that match what is stored."""

import pytest

from recycle_cli.errors import UsageError
from recycle_cli.models import bytes_per_sample, layers, load
from tests.models.architectures import random_model


def test_half_of_minilm_is_half_of_its_work(minilm):
    table = layers(load(minilm, labels=None), length=128)
    assert [one.cut for one in table] == ["0", "1", "2", "3", "4", "5", "6"]
    assert table[0].flops_share == 0
    half = table[3]
    assert half.share == 0.5
    assert half.flops_share == pytest.approx(0.5, abs=0.01)
    assert half.row_shape == (384,)
    assert half.bytes_per_sample == 128 * 384 * 2
    assert half.pooled_bytes == 3 * 384 * 2
    # 11.9 M of embeddings, 1.77 M a block, 0.15 M of pooling: the trunk holds the table of words.
    assert half.parameter_share == pytest.approx(0.76, abs=0.01)
    assert table[-1].flops_share > 0.99


@pytest.mark.parametrize("model_type", ["albert", "deberta-v2", "longformer", "t5", "gpt2", "gemma2"])
def test_shares_grow_from_block_to_block(model_type):
    table = layers(random_model(model_type), length=16)
    for measure in ("flops_share", "parameter_share"):
        shares = [getattr(one, measure) for one in table]
        assert shares == sorted(shares)
        assert 0 < shares[1] < shares[-1] <= 1
    assert table[2].flops_share == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("dtype", "size"), [("float16", 320), ("bfloat16", 320), ("float32", 640), ("int8", 200), ("int4", 130)]
)
def test_bytes_of_a_sample(dtype, size):
    assert bytes_per_sample((16,), 10, dtype) == size


def test_rows_of_four_bits_fill_whole_groups():
    assert [bytes_per_sample(shape, 1, "int4") for shape in ((1,), (17,), (384,), (3, 5, 7))] == [13, 22, 220, 67]


def test_an_unknown_dtype_is_refused(tiny_bert):
    with pytest.raises(UsageError, match="dtype 'float8': expected one of float16"):
        layers(load(str(tiny_bert), labels=None), length=16, dtype="float8")
