"""Samples that are exported by their texts or keys, and to stdout."""

import pytest
from safetensors.numpy import load_file

from recycle_cli.errors import UsageError
from recycle_cli.keys import Sample, keys_of
from recycle_cli.store import export

from .corpora import Corpus


def test_samples_are_exported_by_their_texts(recycle, tmp_path, tiny_bert):
    (tmp_path / "a.csv").write_text("text\nred cell\ngood data\nslow red\n")
    options = ("--model", tiny_bert, "--cut", 2, "--max-length", 16)
    recycle.json("precompute", "a.csv", "acts", *options, cwd=tmp_path)
    texts = ("--text", "slow red", "--text", "red cell")
    found = recycle.json("store", "export", "acts", "two.safetensors", *texts, cwd=tmp_path)
    assert found["samples"] == 2
    tensors = load_file(tmp_path / "two.safetensors")
    keys, _ = keys_of([Sample("", {"text": text}) for text in ("slow red", "red cell")])
    assert (tensors["keys"] == keys).all()
    by_key = ("--key", bytes(keys[0]).hex(), "--key", bytes(keys[1]).hex())
    recycle.json("store", "export", "acts", "same.safetensors", *by_key, cwd=tmp_path)
    assert (tmp_path / "two.safetensors").read_bytes() == (tmp_path / "same.safetensors").read_bytes()
    for arguments, code, said in [
        (("--text", "red cel"), 5, "no sample of the text 'red cel'; add it with `recycle precompute`"),
        (("--key", "zz"), 2, "--key zz: expected 32 hexadecimal digits"),
        (("--key", "z" * 32), 2, f"--key {'z' * 32}: expected 32 hexadecimal digits"),
    ]:
        done = recycle("store", "export", "acts", "x.safetensors", *arguments, cwd=tmp_path)
        assert (done.code, done.err.count("\n")) == (code, 1)
        assert said in done.err


def test_an_export_goes_to_stdout(tmp_path, capfdbinary):
    store = Corpus().store(tmp_path / "s", range(10))
    whole = export(store.path, str(tmp_path / "x.safetensors"))
    found = export(store.path, "-")
    assert {**found, "output": whole["output"]} == whole
    assert capfdbinary.readouterr().out == (tmp_path / "x.safetensors").read_bytes()
    with pytest.raises(UsageError, match="writes a folder, which stdout is not"):
        export(store.path, "-", format="numpy")
