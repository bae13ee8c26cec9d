"""Golden keys never change: a store written today is found by every later version, on every platform."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recycle_cli.keys import Sample, frame, keys_of

GOLDEN = [
    ({}, "99aa06d3014798d86001c324468d497f", "e3b0c44298fc1c149afbf4c8996fb924"),
    ({"text": ""}, "2540df11a0ca0a93325332aba8e27924", "fe163c723ee6ff2917cae64f7e05e542"),
    ({"text": "The tea was cold, again."}, "44bbf78a22c3434f6d7ce0890704bab8", "48304b8b16e9062e121c6dc3cad54e47"),
    ({"text": "Café 🍵\r\n"}, "59eb97f6bc435d9628494d9f56d16af6", "0755956d1d42dad48e8098699b40a0da"),
    (
        {"text": "question", "text_pair": "answer"},
        "3d46e2299e96e783d9fd36578e80f45a",
        "8b559cba0cb30cc9a8a26b739438f43d",
    ),
    (
        {"text_pair": "question", "text": "answer"},
        "1f7802697b6b48952acee6bd243d441f",
        "db60a0366285605300b41c60a7a0c702",
    ),
    ({"text": "x" * 1000}, "e109a4c2bf5471be27b27db43e90261d", "3f6b1d155c4752df2fa416dc7fd72057"),
    ({"image": bytes(range(256))}, "2d9504dc0e671abb9c95b585201bae8e", "49194ea87d4d9fa0e1e98874fbbacd7c"),
    ({"text": "b"}, "214b299220deec7c86bac2f44390705e", "ac188adb4fbad546a0e26114af564b0a"),
    ({"text": b"b"}, "3a5c303598c657ba10bc4dba2d1c9a52", "0bbb9d55ea720eb34183f974bea0baf9"),
]

FIELDS = st.dictionaries(st.text(max_size=3), st.text(max_size=4) | st.binary(max_size=4), max_size=3)


@pytest.mark.parametrize(("fields", "key", "digest"), GOLDEN)
def test_golden_values(fields, key, digest):
    keys, digests = keys_of([Sample("any", fields)])
    assert (keys[0].tobytes().hex(), digests[0].tobytes().hex()) == (key, digest)


def test_the_frame_is_written_down():
    assert frame({"text": "é", "b": b"\x00"}) == (
        b"\x01\0\0\0\0\0\0\0" + b"\x01\0\0\0\0\0\0\0" + b"bb\x00"
        b"\x04\0\0\0\0\0\0\0" + b"\x02\0\0\0\0\0\0\0" + b"ttext\xc3\xa9"
    )  # fmt: skip


@settings(deadline=None)
@given(FIELDS, FIELDS)
@example({"a": "b"}, {"a": b"b"})
@example({"ab": ""}, {"a": "b"})
@example({"a": ""}, {})
@example({"a": "", "b": ""}, {"a": "b"})
@example({"a": "\x01" + "\0" * 7}, {"a": b"\x01" + b"\0" * 7})
def test_different_fields_never_frame_to_the_same_bytes(one, other):
    assert (frame(one) == frame(other)) == (one == other)


@settings(deadline=None)
@given(FIELDS)
def test_a_frame_can_be_read_back(fields):
    assert unframe(frame(fields)) == fields


def unframe(framed: bytes) -> dict[str, str | bytes]:
    """The inverse of `frame`: that there is one proves that no two records share a frame."""
    fields: dict[str, str | bytes] = {}
    while framed:
        name_bytes, content_bytes = int.from_bytes(framed[:8], "little"), int.from_bytes(framed[8:16], "little")
        kind, rest = framed[16:17], framed[17:]
        name, content = rest[:name_bytes].decode(), rest[name_bytes : name_bytes + content_bytes]
        fields[name] = content.decode() if kind == b"t" else content
        framed = rest[name_bytes + content_bytes :]
    return fields


@settings(deadline=None)
@given(FIELDS, st.randoms())
def test_the_order_of_the_fields_does_not_matter(fields, random):
    shuffled = list(fields.items())
    random.shuffle(shuffled)
    assert frame(dict(shuffled)) == frame(fields)


def test_text_is_hashed_as_it_is():
    variants = ["é", "e\u0301", "É", "é ", "é\n", "é\r\n", "\ufeffé"]
    keys, digests = keys_of([Sample(str(i), {"text": text}) for i, text in enumerate(variants)])
    assert len(np.unique(keys, axis=0)) == len(np.unique(digests, axis=0)) == len(variants)


def test_the_id_is_not_part_of_the_key():
    keys, digests = keys_of(
        [Sample("1", {"text": "x"}), Sample("2", {"text": "x"}), Sample("3", {"text": "y"})]
    )
    assert (keys[0] == keys[1]).all()
    assert (digests[0] == digests[1]).all()
    assert (keys[0] != keys[2]).any()


def test_no_samples_give_no_rows():
    keys, digests = keys_of([])
    assert keys.shape == digests.shape == (0, 16)
    assert keys.dtype == digests.dtype == np.uint8


@pytest.mark.parametrize("seed", ["0", "12345"])
def test_keys_do_not_depend_on_the_process(seed):
    fields = {"text": "Straße", "text_pair": "日本", "z": "", "a": "1"}
    code = (
        "from recycle_cli.keys import Sample, keys_of; "
        f"keys, digests = keys_of([Sample('0', {fields!r})]); print(keys.tobytes().hex(), digests.tobytes().hex())"
    )
    environment = {
        **os.environ,
        "PYTHONHASHSEED": seed,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "PYTHONUTF8": "1",
    }
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True)
    keys, digests = keys_of([Sample("0", fields)])
    assert printed.stdout.split() == [keys.tobytes().hex(), digests.tobytes().hex()]
