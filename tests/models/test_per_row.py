"""Models with an output for each token: the halves are the whole at every real token, and what stands at padding is
nobody's business."""

from collections.abc import Iterator
from functools import cache

import pytest
import torch
from torch import Tensor

from recycle_cli.errors import ModelError
from recycle_cli.models import Loaded, SplitModel, load, split
from recycle_cli.models.hub import Source
from recycle_cli.models.task_layer import TaskLayer
from recycle_cli.models.text.load import load_with
from tests.models.architectures import ALIKE, PER_ROW, SPANS, TOKENS, each_kind, random_model, random_per_row
from tests.models.test_parity import LENGTHS, batch_of, error, gradients, stored

TAGS = TaskLayer("token_classification", tuple("abcde"), auto=TOKENS, per_row=True)
ANSWER = TaskLayer("question_answering", ("start", "end"), auto=SPANS, per_row=True)

every_model = pytest.mark.parametrize(
    ("auto", "model_type"),
    [
        pytest.param(auto, name, marks=pytest.mark.long if name in ALIKE else ())
        for auto, names in PER_ROW.items()
        for name in names
    ],
)


@cache
def parts(auto: str, model_type: str) -> SplitModel:
    return split(random_per_row(model_type, auto), ["every"], max_length=32, dtype="float32", state_0=True)


def directly(model: SplitModel, batch: dict[str, Tensor]) -> Tensor:
    """The outputs at all real tokens by the plain model, each text alone and unpadded."""
    found = []
    for row, length in enumerate(LENGTHS.tolist()):
        output = model.model(**{name: tensor[row : row + 1, :length] for name, tensor in batch.items()})
        alone = torch.stack((output["start_logits"], output["end_logits"]), -1) if "logits" not in output else None
        found.append(output["logits"][0] if alone is None else alone[0])
    return torch.cat(found)


@every_model
def test_halves_whole_and_the_plain_model_agree_at_every_real_token(auto, model_type):
    model = parts(auto, model_type)
    batch = batch_of(model)
    real = batch["attention_mask"].bool()
    labels = 5 if auto == TOKENS else 2
    assert model.per_row
    with torch.no_grad():
        full, rows = model.full(batch), model.trunk(batch)
        assert full.shape == (*real.shape, labels)
        assert error(directly(model, batch), full[real]) <= 1e-4
        for cut in model.cuts:
            halves = model.head_from(cut)(stored(rows[cut], real), LENGTHS)
            assert halves.shape == full.shape
            assert error(full[real], halves[real]) <= 1e-5, cut


@pytest.mark.parametrize("model_type", ["bert", "deberta-v2", "modernbert", "convbert", "albert", "gpt2", "llama"])
@pytest.mark.parametrize("auto", [TOKENS, SPANS])
def test_gradients(auto, model_type):
    """The head learns from stored rows what it learns with the frozen trunk in place, at the real tokens."""
    model = parts(auto, model_type)
    batch = batch_of(model)
    real = batch["attention_mask"].bool()
    for cut in model.cuts:
        for parameter in model.model.parameters():
            parameter.requires_grad_(True)
        model.freeze(cut)
        rows = stored(model.trunk(batch)[cut], real)
        expected = gradients(model, cut, lambda: model.full(batch)[real])
        got = gradients(model, cut, lambda rows=rows, cut=cut: model.head_from(cut)(rows, LENGTHS)[real])
        assert expected
        for name in expected:
            assert error(expected[name], got[name]) <= 1e-5, (cut, name)


@pytest.mark.parametrize("model_type", each_kind(name for name in PER_ROW[TOKENS] if name not in ("t5", "longformer")))
def test_tags_and_classes_share_their_stores(model_type):
    """Longformer alone gives the first token of a text to be classified another attention."""
    classes = split(random_model(model_type), ["2"], max_length=32, dtype="float16")
    tags = random_per_row(model_type, TOKENS)
    tags.model.base_model.load_state_dict(classes.model.base_model.state_dict(), strict=False)
    assert classes.recipe.difference(split(tags, ["2"], max_length=32, dtype="float16").recipe) is None


def test_what_a_row_does_not_tell_is_refused_with_the_reason():
    loaded = random_per_row("longformer", SPANS)
    with pytest.raises(ModelError, match=r"LongformerForQuestionAnswering cannot be cut.*separator tokens"):
        split(loaded, ["2"], max_length=32, dtype="float32")


@pytest.mark.parametrize("per_row", [True, False])
def test_outputs_of_another_shape_than_was_said_are_refused(per_row):
    right = random_model("bert") if per_row else random_per_row("bert", TOKENS)
    wrong = Loaded("bert", right.model, right.tokenizer, per_row=per_row)
    with pytest.raises(ModelError, match=r"gives outputs .* expected 3(, 7)? and one number for each label"):
        split(wrong, ["2"], max_length=32, dtype="float32")


@pytest.mark.parametrize(("layer", "kind"), [(TAGS, "TokenClassification"), (ANSWER, "QuestionAnswering")])
def test_a_layer_for_tokens_is_put_on_saved_and_loaded_again(tiny_bert, tmp_path, layer, kind):
    loaded = load_with(layer, Source(str(tiny_bert)), seed=3)
    assert type(loaded.model).__name__ == f"BertFor{kind}"
    assert loaded.labels == layer.labels
    assert len(loaded.missing) == 2
    assert loaded.loads_with == f"AutoModelFor{kind}.from_pretrained"
    loaded.save(tmp_path, 32)
    again = load_with(layer.kept, Source(str(tmp_path)))
    assert again.labels == layer.labels
    assert not again.missing
    one, other = (split(model, ["2"], max_length=32, dtype="float32") for model in (loaded, again))
    batch = batch_of(one)
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        assert torch.equal(one.full(batch)[real], other.full(batch)[real])
    assert one.recipe.difference(other.recipe) is None


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
@pytest.mark.parametrize("layer", [TAGS, ANSWER], ids=["tags", "answer"])
def test_a_classifier_is_the_start_of_a_model_for_tokens(tmp_path, model_type, layer):
    """Of a decoder too, whose class for answers calls its base by another name than the checkpoint."""
    random_model(model_type).save(tmp_path, 32)
    loaded, other = load(str(tmp_path), labels=None), load_with(layer, Source(str(tmp_path)))
    assert all("qa_outputs" in name or "score" in name for name in other.missing)
    classes, tokens = (split(one, ["2"], max_length=32, dtype="float32") for one in (loaded, other))
    assert classes.recipe.difference(tokens.recipe) is None


def test_one_number_for_each_text(tiny_bert, tmp_path):
    """A regression, on a checkpoint without a task layer and on one with classes; its own kind is kept by `kept`."""
    layer = TaskLayer("regression", ("score",))
    load(str(tiny_bert), labels=["a", "b", "c"]).save(tmp_path / "classes", 32)
    for name in (tiny_bert, tmp_path / "classes"):
        loaded = load_with(layer, Source(str(name)))
        assert loaded.labels == ("score",)
        assert loaded.model.config.problem_type == "regression"
        assert loaded.missing == {"classifier.weight", "classifier.bias"}
        model = split(loaded, ["2"], max_length=32, dtype="float32")
        batch = batch_of(model)
        assert model.full(batch).shape == (4, 1)
        assert model.head(model.trunk(batch)["2"], LENGTHS).shape == (4, 1)
    loaded.save(tmp_path / "run", 32)
    again = load_with(layer.kept, Source(str(tmp_path / "run")))
    assert (again.labels, again.model.config.problem_type) == (("score",), "regression")


def test_an_unknown_auto_class_is_refused(tiny_bert):
    with pytest.raises(ModelError, match="transformers has no class AutoModelForNothing"):
        load_with(TaskLayer(auto="AutoModelForNothing"), Source(str(tiny_bert)))


def test_a_decoder_that_ends_in_padding_is_no_trouble_for_tokens():
    """Nothing is pooled by the last token, so that a text may end in the padding token."""
    model = split(random_per_row("gpt2", TOKENS), ["2"], max_length=16, dtype="float32")
    assert not model.full.__self__.engine.inputs.refuses_final_pad


def test_the_layer_of_before_is_made_as_before():
    layer = TaskLayer("single_label_classification", ("a", "b"))
    assert (layer.auto, layer.per_row, layer.embeds) == ("AutoModelForSequenceClassification", False, False)
    assert TAGS.kept == TaskLayer("token_classification", auto=TOKENS, per_row=True)


@pytest.fixture(autouse=True, scope="module")
def forget_models() -> Iterator[None]:
    yield
    parts.cache_clear()
