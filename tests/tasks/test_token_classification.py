"""Token classification: learnt from a store as in place, resumed exactly, and an ordinary checkpoint whose pipeline
gives the same tags; one store with classification; long sentences in windows."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import transformers

from recycle_cli.errors import DataError, UsageError
from recycle_cli.models.text import opening
from recycle_cli.settings import (
    AdapterSettings,
    CorpusSettings,
    HeadSettings,
    ModelSettings,
    PrecomputeSettings,
    PredictSettings,
    SampleSettings,
    TokenSettings,
    WindowSettings,
)
from recycle_cli.tasks.entities import taken_apart
from recycle_cli.training.trainer import Trainer
from recycle_cli.verbs.finetune import Job, finetune, finetune_heads
from recycle_cli.verbs.precompute import precompute
from recycle_cli.verbs.predict import predict
from tests.records import write_csv
from tests.tasks.tagged import tagged, write_conll, write_tokens
from tests.trainings import SETTINGS, Tried, learns_as_in_place, resumes_exactly

TOKENS = TokenSettings(WindowSettings(3))


def tried_on(folder, model, train, test, settings=TOKENS):
    samples = SampleSettings("token-classification", settings.windows)
    data = (CorpusSettings((str(path),)) for path in (train, test))
    found = Tried(
        "token-classification", settings, folder, ModelSettings(str(model), None, 16), *data, {"samples": samples}
    )
    found.fill()
    return found


@pytest.fixture(params=["short", "windows", "all-pieces"], scope="module")
def tried(request, tmp_path_factory, tiny_bert):
    """CoNLL files of short sentences; sentences of up to 40 words, of which 14 fit; a tag at every piece."""
    longest = 40 if request.param == "windows" else 8
    settings, folder = replace(TOKENS, label_all_pieces=request.param == "all-pieces"), tmp_path_factory.mktemp("tags")
    paths = [write_conll(folder / f"{seed}.conll", tagged(36 - 20 * seed, seed, longest)) for seed in (0, 1)]
    return tried_on(folder, tiny_bert, *paths, settings)


@pytest.mark.parametrize(
    "tried",
    ["windows", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("short", "all-pieces"))],
    indirect=True,
)
def test_it_resumes_exactly(tried):
    resumes_exactly(tried)


# The words of a tokenizer without marks of its own for pieces are what white space separates, as ours.
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_it_learns_from_a_store_as_in_place_and_its_pipeline_agrees(tried):
    report, _ = learns_as_in_place(tried)
    assert report.classes == ["O", "B-BIO", "B-COL", "I-BIO", "I-COL"]
    hits, stored = tried.score("stored", tried.store)
    misses, plain = tried.score("stored")
    assert (hits.misses, misses.hits) == (0, 0)
    assert hits.metrics == pytest.approx(report.metrics, abs=1e-5)
    assert misses.metrics == pytest.approx(report.metrics, abs=1e-5)
    assert [row["tags"] for row in stored] == [row["tags"] for row in plain]
    agrees_with_its_pipeline(tried, stored)


def agrees_with_its_pipeline(tried, predicted):
    """The tags of words and the entities of every sentence that is no longer than the model takes."""
    pipe = transformers.pipeline("token-classification", str(tried.folder / "stored"), device="cpu")
    assert type(pipe.model).__name__ == "BertForTokenClassification"
    compared = 0
    for sentence, own in zip(sentences(tried.test), predicted, strict=True):
        assert len(own["tags"]) == len(sentence)
        text = " ".join(sentence)
        assert all(span["text"] == text[span["start"] : span["end"]] for span in own["entities"])
        if len(sentence) > 14:
            continue
        compared += 1
        pieces = {one["start"]: one["entity"] for one in pipe(text, ignore_labels=[])}
        starts = np.cumsum([0, *(len(word) + 1 for word in sentence)])[:-1].tolist()
        assert [pieces[start] for start in starts] == own["tags"]
        found = pipe(text, aggregation_strategy="first")
        assert [(one["entity_group"], one["start"], one["end"]) for one in found] == [
            (span["label"], span["start"], span["end"]) for span in own["entities"]
        ]
        assert [one["score"] for one in found] == pytest.approx([span["score"] for span in own["entities"]], abs=1e-4)
    assert compared


def sentences(corpus):
    with open(corpus.source[0], encoding="utf-8") as file:  # noqa: PTH123 - a path as text
        blocks = file.read().removeprefix("-DOCSTART-\n\n").split("\n\n")
    return [[line.split("\t")[0] for line in block.strip().splitlines()] for block in blocks]


def test_no_word_of_a_long_sentence_is_left_out(tmp_path, tiny_bert, monkeypatch):
    """Every word has its tag learnt and predicted once, however many windows it lies in."""
    rows = tagged(12, longest=60)
    path = write_conll(tmp_path / "a.conll", rows)
    tried = tried_on(tmp_path, tiny_bert, path, path)
    seen = []
    loss = Trainer._loss_of

    def counting(self, outputs, members, mix):
        seen.append(int((self.data.targets.take(members).values >= 0).sum()))
        return loss(self, outputs, members, mix)

    monkeypatch.setattr(Trainer, "_loss_of", counting)
    report = tried.fit("run", replace(SETTINGS, epochs=1))
    assert sum(seen) == sum(len(row["tags"]) for row in rows)
    assert report.samples > len(rows)
    scored, predictions = tried.score("run", tried.store)
    assert [len(one["tags"]) for one in predictions] == [len(row["tags"]) for row in rows]
    assert scored.hits == report.samples


def counted(monkeypatch):
    """The batches that a trunk is run over from here on."""
    found, split = [], opening.split

    def counting(*arguments, **options):
        halves = split(*arguments, **options)
        return replace(halves, trunk=lambda batch: found.append(batch) or halves.trunk(batch))

    monkeypatch.setattr(opening, "split", counting)
    return found


def test_entities_and_classes_of_the_same_texts_share_their_rows(tmp_path, tiny_bert, monkeypatch):
    """A store that classification has filled needs no pass for entities, and the other way round."""
    rows = tagged(30)
    texts = write_csv(
        tmp_path / "texts.csv", [{"text": " ".join(row["tokens"]), "label": row["tags"][0]} for row in rows]
    )
    words = write_tokens(tmp_path / "words.jsonl", rows)
    model = ModelSettings(str(tiny_bert), None, 16)
    store = str(tmp_path / "store")
    first = precompute(CorpusSettings((str(texts),)), store, model, PrecomputeSettings(("2",), "float32"))
    passes = counted(monkeypatch)
    tokens = PrecomputeSettings(("2",), "float32", samples=SampleSettings("token-classification"))
    second = precompute(CorpusSettings((str(words),)), store, model, tokens)
    assert (second.samples, second.new_samples, second.fingerprint) == (30, 0, first.fingerprint)
    assert not passes
    for name, data in (("token-classification", words), ("text-classification", texts)):
        job = Job(CorpusSettings((str(data),)), str(tmp_path / name), store, task=name, tensorboard=False)
        assert finetune(job, ModelSettings(), replace(SETTINGS, epochs=1)).store_hit_share == 1.0


def test_adapters_and_several_heads_train_and_misses_are_written_back(tmp_path, tiny_bert):
    pytest.importorskip("peft")
    rows = [{**row, "pos": ["X" if tag == "O" else "Y" for tag in row["tags"]]} for row in tagged(24)]
    path = write_tokens(tmp_path / "a.jsonl", rows)
    tried = tried_on(tmp_path, tiny_bert, path, path)
    job = Job(tried.train, str(tmp_path / "heads"), tried.store, tried.test, task=tried.name, tensorboard=False)
    own = replace(SETTINGS, epochs=1, task=TOKENS)
    lora = replace(own, adapter=AdapterSettings("lora"))
    apart = replace(own, adapter=AdapterSettings("bottleneck", save="apart"))
    heads = [
        HeadSettings("plain", own, "tags"),
        HeadSettings("lora", lora, "pos"),
        HeadSettings("apart", apart, "tags"),
    ]
    done = finetune_heads(job, ModelSettings(), heads)
    assert [head["classes"] for head in done.heads] == [
        ["O", "B-BIO", "B-COL", "I-BIO", "I-COL"],
        ["X", "Y"],
        done.heads[0]["classes"],
    ]
    for head in done.heads:
        column = "pos" if head["name"] == "lora" else "tags"
        report, _ = tried.score(f"heads/{head['name']}", tried.store, test=replace(tried.test, label_column=column))
        assert report.metrics == pytest.approx(head["metrics"], abs=1e-5)
    partial = str(tmp_path / "partial")
    tried.fill(partial, limit=5)
    first, _ = tried.score("heads/plain", partial, write_back=True)
    again, _ = tried.score("heads/plain", partial)
    assert first.misses > 0
    assert again.misses == 0


def test_predictions_go_to_json_lines_and_parquet(tmp_path, tiny_bert):
    path = write_conll(tmp_path / "a.conll", tagged(20))
    tried = tried_on(tmp_path, tiny_bert, path, path)
    tried.fit("run", replace(SETTINGS, epochs=1))
    raw = CorpusSettings(
        (write_csv(tmp_path / "raw.csv", [{"text": "the  red cell"}, {"text": "data"}]).as_posix(),), "text"
    )
    report = predict(raw, str(tmp_path / "run"), None, None, ModelSettings(), PredictSettings())
    assert report.output.endswith("run/predictions.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    assert [len(line["tags"]) for line in lines] == [3, 1]
    predict(raw, str(tmp_path / "run"), None, str(tmp_path / "out.parquet"), ModelSettings(), PredictSettings())
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["tags"] for row in table] == [line["tags"] for line in lines]
    assert [[span["start"] for span in row["entities"]] for row in table] == [
        [span["start"] for span in line["entities"]] for line in lines
    ]
    with pytest.raises(UsageError, match=r"--output .*\.csv: expected an ending of \.jsonl, \.parquet"):
        predict(raw, str(tmp_path / "run"), None, str(tmp_path / "out.csv"), ModelSettings(), PredictSettings())


def test_bad_tags_are_one_line(tmp_path, tiny_bert):
    train = write_conll(tmp_path / "train.conll", tagged(20))
    test = write_conll(tmp_path / "test.conll", [{"tokens": ["the", "red"], "tags": ["O", "B-NEW"]}])
    data, other = (CorpusSettings((str(path),)) for path in (train, test))
    tried = Tried("token-classification", TOKENS, tmp_path, ModelSettings(str(tiny_bert), None, 16), data, other)
    with pytest.raises(DataError, match=r"test\.conll, line 3: the tag 'B-NEW' of word 2 was not seen in training"):
        tried.fit("run", cut="2")
    tried.fit("run", replace(SETTINGS, epochs=1), cut="2", evaluation=data)
    report, found = tried.score("run")
    assert report.no_metrics.startswith("the tag 'B-NEW' is not one of the run's tags (O, B-BIO")
    assert len(found[0]["tags"]) == 2
    outside = write_conll(tmp_path / "outside.conll", [{"tokens": ["the"], "tags": ["O"]}] * 20)
    with pytest.raises(DataError, match="only the label 'O', expected at least two tags"):
        replace(tried, train=CorpusSettings((str(outside),))).fit("none", cut="2")


def test_the_kinds_of_tags_are_told_apart():
    assert taken_apart("B-PER") == ("B", "PER")
    assert taken_apart("ORG") == ("I", "ORG")
