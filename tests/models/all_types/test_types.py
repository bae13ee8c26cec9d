"""Every type of transformers gives what docs/models.md says of it: those of the commoner half that compute in ways of
their own quickly, the rest of that half and all of them once more in `long`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.all_types.check import EXACT, REFUSED, UNBUILDABLE, check
from tests.models.all_types.page import outcomes_on_page
from tests.models.all_types.sizes import ALL_TYPES
from tests.models.all_types.worker import Worker

TEXTS = (
    "albert bart bert biogpt bloom camembert convbert data2vec-text deberta deberta-v2 deepseek_v3 distilbert "
    "electra ernie esm eurobert falcon fnet gemma gemma2 gemma3_text glm glm4 gpt2 gpt_bigcode gpt_neo gpt_neox "
    "gptj ibert jamba layoutlm llama longformer luke mbart mistral mixtral mobilebert modernbert mpnet mpt mt5 "
    "nemotron nomic_bert olmo olmo2 openai-gpt opt persimmon phi phi3 qwen2 qwen2_moe qwen3 rembert roberta "
    "roformer smollm3 stablelm starcoder2 t5 xlm-roberta xlm-roberta-xl xmod yoso "
)
IMAGES = (
    "beit bit clip convnext convnextv2 deit dinov2 dinov2_with_registers efficientnet levit mobilenet_v2 "
    "mobilevit perceiver poolformer pvt regnet resnet segformer siglip swin timm_wrapper vit "
)
COMMON = [*(("text", kind) for kind in TEXTS.split()), *(("image", kind) for kind in IMAGES.split())]
"""The types that most checkpoints are of."""

ALIKE = (
    "biogpt camembert data2vec-text eurobert gemma gemma2 glm gpt_bigcode layoutlm mbart mistral mt5 nemotron olmo "
    "olmo2 persimmon phi3 qwen2 qwen2_moe rembert smollm3 stablelm starcoder2 xlm-roberta xlm-roberta-xl "
    "bit convnextv2 deit dinov2_with_registers poolformer regnet siglip "
)
"""Those of them that are made of the blocks of another one, but for sizes, norms, activations and positions."""


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    with Worker() as worker:
        yield worker


def test_the_page_has_every_type_and_none_that_is_wrong():
    found = outcomes_on_page()
    assert set(found) == set(ALL_TYPES)
    assert {outcome for outcome, _ in found.values()} <= {EXACT, REFUSED, UNBUILDABLE}


def test_no_type_that_was_exact_is_lost():
    """The page may be made anew; what was exact once stays so."""
    found = outcomes_on_page()
    names = Path(__file__).with_name("exact.txt").read_text(encoding="utf-8").split()
    lost = [name for name in names if found.get(tuple(name.split(":")), ("missing", ()))[0] != EXACT]
    assert len(names) > 140
    assert not lost, f"exact before, and no longer: {', '.join(lost)}"


def test_the_commoner_half_is_half():
    assert set(COMMON) <= set(ALL_TYPES)
    assert len(set(COMMON)) >= len(ALL_TYPES) / 2


def test_what_is_alike_is_of_the_common_types():
    assert {kind for _, kind in COMMON} > set(ALIKE.split())
    assert len(ALIKE.split()) < len(COMMON) / 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("modality", "kind"),
    [pytest.param(*one, marks=pytest.mark.long if one[1] in ALIKE.split() else ()) for one in COMMON],
)
def test_a_common_type_is_what_the_page_says(modality, kind):
    outcome = check(modality, kind, quick=True)
    assert (outcome.outcome, outcome.cuts) == outcomes_on_page()[modality, kind], outcome.reason


@pytest.mark.long
@pytest.mark.parametrize(("modality", "kind"), ALL_TYPES)
def test_every_type_is_what_the_page_says(modality, kind, worker):
    outcome = worker.check(modality, kind)
    assert (outcome.outcome, outcome.cuts) == outcomes_on_page()[modality, kind], outcome.reason
