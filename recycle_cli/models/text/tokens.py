"""Text to token ids: truncated ragged samples, and batches padded on the right."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recycle_cli.errors import DataError, ModelError, UsageError
from recycle_cli.keys import Sample
from recycle_cli.models.hub import first_line
from recycle_cli.models.identity import tokenizer_digest
from recycle_cli.models.preprocessor import Inputs, Prepared
from recycle_cli.models.text.load import Loaded
from recycle_cli.models.text.spans import Piece, Spans, spans_of
from recycle_cli.models.text.windows import TextWindow, windows_of

T = TypeVar("T")

Take = Callable[[Any, Sequence[Sample]], list[T]]
"""The tokenizer's answer on some samples, and those samples, to a value for each."""

TYPES = "token_type_ids"
"""The input that most tokenizers give beside the ids; a model that takes it has it among its names, given or not."""

DEFAULT_MAX_LENGTH = 512
"""Tokens kept of a text if neither the tokenizer nor the model asks for fewer."""

DEFAULT_STRIDE = 128
"""Tokens that neighbouring windows share, as in transformers' question answering."""

ANY_LENGTH = 2**31 - 1
"""More tokens than any text has."""

_AT_ONCE = 512
"""Texts tokenised in one call. A window of 16,384 texts of 50 tokens takes 148 MB in one call, 13 MB in calls of this
size: a tokenizer makes offsets, words and masks besides the ids."""


@dataclass(frozen=True)
class TextInputs:
    """The preprocessor of a text model, a TextPreprocessor.

    names              inputs that the model takes from the tokenizer
    pad_id             token that fills up a batch
    ordinary_id        token that stands for any text, for a head that has rows alone
    vocabulary         number of tokens that the model knows; None if it does not say
    refuses_final_pad  whether the model pools by the last token that is not `pad_id`
    """

    tokenizer: Any
    names: tuple[str, ...]
    max_length: int
    pad_id: int
    ordinary_id: int
    vocabulary: int | None = None
    refuses_final_pad: bool = False
    modality = "text"
    row_cost = 1

    @property
    def token_count(self) -> int:
        """How many tokens there are, by the tokenizer if the model does not say it (CANINE hashes characters)."""
        return self.vocabulary or len(self.tokenizer)

    @cached_property
    def digest(self) -> str:
        """Digest of the tokenizer and of the names of the inputs."""
        return tokenizer_digest(self.tokenizer, self.names)

    def prepare(self, samples: Sequence[Sample]) -> list[Prepared]:
        """Tokenise samples, each cut to `max_length` tokens; the longer text of a pair is cut first.

        Raises DataError for a sample that gives no token.
        """
        prepared = self._tokenized(samples, self._prepared)
        for sample, inputs in zip(samples, prepared, strict=True):
            self._check(sample, inputs)
        return prepared

    def spans(self, samples: Sequence[Sample]) -> list[Spans]:
        """Field, first and last + 1 character of each token of `prepare`, as TextPreprocessor says.

        Raises ModelError for a slow tokenizer.
        """
        if not self.tokenizer.is_fast:
            raise ModelError(
                f"{type(self.tokenizer).__name__} is a slow tokenizer, which does not say where its tokens lie in a "
                "text; expected a model with a fast one (tokenizer.json)"
            )
        return self._tokenized(samples, spans_of, return_offsets_mapping=True)

    def token_counts(self, samples: Sequence[Sample]) -> npt.NDArray[np.int64]:
        """The tokens that each sample would have if none were cut off (n,)."""
        return self.lengths(self._untruncated.prepare(samples))

    def pieces(self, text: str, *, special: bool) -> list[Piece]:
        """The tokens of a text, none cut off; with `special` those around it, too."""
        fast = self.tokenizer.is_fast
        found = self.tokenizer(
            text,
            add_special_tokens=special,
            return_special_tokens_mask=True,
            return_offsets_mapping=fast,
            return_attention_mask=False,
            verbose=False,
        )
        ids = found["input_ids"]
        names = self.tokenizer.convert_ids_to_tokens(ids)
        places = found["offset_mapping"] if fast else [(None, None)] * len(ids)
        return [
            Piece(one, str(name), bool(around), *((None, None) if around else place))
            for one, name, around, place in zip(ids, names, found["special_tokens_mask"], places, strict=True)
        ]

    def text_of(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text that token ids stand for. Raises DataError for an id that is none."""
        if ids and max(ids) >= self.token_count:
            raise DataError(f"token {max(ids)} is not one of the model's {self.token_count}")
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=skip_special))

    def windows(self, sample: Sample, stride: int | None) -> list[TextWindow]:
        """The windows of a sample that has more than `max_length` tokens, as TextPreprocessor says."""
        shared = min(DEFAULT_STRIDE, self.max_length // 3) if stride is None else stride
        room = self.max_length - self.tokenizer.num_special_tokens_to_add(pair="text_pair" in sample.fields)
        if shared >= room:
            raise UsageError(
                f"--stride {shared}: a window of {self.max_length} tokens (--max-length) has room for {room} of a "
                "text, expected fewer to be shared"
            )

        def measure(one: Sample) -> Spans:
            (spans,) = self._untruncated.spans([one])
            return spans

        return windows_of(sample, measure, self.max_length, shared)

    @cached_property
    def _untruncated(self) -> "TextInputs":
        """The same for texts of any length."""
        return replace(self, max_length=ANY_LENGTH)

    def collate(self, prepared: Sequence[Prepared]) -> Inputs:
        """Pad on the right to the longest sample: int64 tensors (B, L), with `attention_mask`."""
        lengths = [len(inputs["input_ids"]) for inputs in prepared]
        batch = {name: self._padded(name, prepared, max(lengths)) for name in prepared[0]}
        return batch | {"attention_mask": mask_of(torch.tensor(lengths), max(lengths))}

    def lengths(self, prepared: Sequence[Prepared]) -> npt.NDArray[np.int64]:
        """Tokens of each sample (n,)."""
        return np.fromiter((len(inputs["input_ids"]) for inputs in prepared), dtype=np.int64)

    @cached_property
    def examples(self) -> dict[str, Tensor]:
        """Values (n, ...) that inputs other than ids and plain token types have for some tokens of the vocabulary."""
        tokens = [token for token, _ in sorted(self.tokenizer.get_vocab().items(), key=lambda pair: pair[1])][:200]
        roomy = replace(self, max_length=max(self.max_length, 512))
        found: Prepared = {}
        while tokens and not found:
            try:
                (found,) = roomy._tokenized([Sample("", {"text": " ".join(tokens)})], self._prepared)
            except DataError:
                # Tapas takes no text that is longer than it may be.
                tokens = tokens[: len(tokens) // 2]
        plain = {name for name, values in found.items() if name in ("input_ids", TYPES) and values.ndim == 1}
        return {name: torch.from_numpy(values).long() for name, values in found.items() if name not in plain}

    def stand_in(self, attention_mask: Tensor) -> Inputs:
        """Inputs for the head, which has rows but no text: an ordinary token at each real place, padding elsewhere.

        Ids and not embeddings, since decoders find the last token of a text by its id.
        """
        ids = torch.where(attention_mask.bool(), self.ordinary_id, self.pad_id)
        return {"input_ids": ids, "attention_mask": attention_mask}

    def _tokenized(self, samples: Sequence[Sample], take: Take[T], **more: Any) -> list[T]:
        """A value for each sample, in order: `take` makes them of the tokenizer's answer on some samples, and of those.

        `more` are further arguments of the tokenizer.
        """
        found: list[T] = []
        for start in range(0, len(samples), _AT_ONCE):
            part = samples[start : start + _AT_ONCE]
            pairs = [sample for sample in part if _is_pair(sample)]
            if len(pairs) in (0, len(part)):
                found += self._taken(part, take, **more)
                continue
            # A tokenizer takes texts or pairs in one call, not both.
            of_pairs = iter(self._taken(pairs, take, **more))
            of_texts = iter(self._taken([sample for sample in part if not _is_pair(sample)], take, **more))
            found += [next(of_pairs if _is_pair(sample) else of_texts) for sample in part]
        return found

    def _taken(self, samples: Sequence[Sample], take: Take[T], **more: Any) -> list[T]:
        texts = [sample.fields["text"] for sample in samples]
        pairs = [sample.fields["text_pair"] for sample in samples] if _is_pair(samples[0]) else None
        try:
            encoded = self.tokenizer(
                texts,
                pairs,
                truncation=True,
                max_length=self.max_length,
                padding=False,
                return_attention_mask=False,
                verbose=False,
                **more,
            )
        except MemoryError:
            raise
        except Exception as error:  # a tokenizer's own code raises whatever it likes
            if len(samples) > 1:
                return [one for sample in samples for one in self._taken([sample], take, **more)]
            reason = f"its text cannot be turned into tokens ({first_line(error)})"
            raise DataError(f"record {samples[0].id}: {reason}; shorten or remove it") from error
        return take(encoded, samples)

    def _prepared(self, encoded: Any, samples: Sequence[Sample]) -> list[Prepared]:
        return [
            {name: np.asarray(encoded[name][row], dtype=np.int32) for name in self.names if name in encoded}
            for row in range(len(samples))
        ]

    def _padded(self, name: str, prepared: Sequence[Prepared], longest: int) -> Tensor:
        shape = (len(prepared), longest, *prepared[0][name].shape[1:])
        padded = np.full(shape, self.pad_id if name == "input_ids" else 0, dtype=np.int64)
        for row, inputs in zip(padded, prepared, strict=True):
            row[: len(inputs[name])] = inputs[name]
        return torch.from_numpy(padded)

    def _check(self, sample: Sample, inputs: Prepared) -> None:
        ids = inputs["input_ids"]
        if not len(ids):
            raise DataError(f"record {sample.id}: its text gives no token; remove the record")
        if self.vocabulary is not None and ids.max() >= self.vocabulary:
            raise DataError(
                f"record {sample.id}: its token {int(ids.max())} is not one of the model's {self.vocabulary}; "
                f"expected the tokenizer that the model was made with"
            )
        if self.refuses_final_pad and ids[-1] == self.pad_id:
            raise DataError(
                f"record {sample.id}: its last token is the padding token {self.tokenizer.pad_token!r}, by which this "
                f"model tells where a text ends; remove it from the text or give the tokenizer another pad_token"
            )


def _is_pair(sample: Sample) -> bool:
    return sample.fields.get("text_pair") is not None


def text_inputs(loaded: Loaded, forward_names: Sequence[str], max_length: int) -> TextInputs:
    """How `loaded` takes text. A model without a padding token is given one: the end of text, if it has that.

    Raises UsageError for a length that the model has no places for, or that has no room for a text.
    """
    limit = longest_text(loaded.model)
    least = loaded.tokenizer.num_special_tokens_to_add(pair=True) + 2
    if limit is not None and max_length > limit:
        raise UsageError(
            f"max length {max_length}: {loaded.name} has places for {limit} tokens; use --max-length {limit}"
        )
    if max_length < least:
        raise UsageError(f"max length {max_length}: expected at least {least}, the special tokens and one of each text")
    names = ("input_ids", *(name for name in (TYPES, *_others_given(loaded)) if name in forward_names))
    pad = _pad_id(loaded)
    words = word_embeddings(loaded.model)
    vocabulary = words.num_embeddings if isinstance(words, nn.Embedding) else None
    return TextInputs(loaded.tokenizer, names, max_length, pad, _ordinary_id(loaded.tokenizer, pad), vocabulary)


def _others_given(loaded: Loaded) -> list[str]:
    """Names of what the tokenizer gives beside ids, types and mask (RoCBert: shapes and sounds; Tapas: columns).

    Raises ModelError if it takes no text, or gives something that is no whole number, or numbers, for each token.
    """
    named = f"model {loaded.name!r}: its tokenizer ({type(loaded.tokenizer).__name__})"
    try:
        given = loaded.tokenizer(["a"], padding=False, return_attention_mask=False, verbose=False)
        found = {name: np.asarray(given[name][0]) for name in given}
    except MemoryError:
        raise
    except Exception as error:  # a tokenizer that is made for other inputs raises whatever it likes
        raise ModelError(f"{named} does not take a text alone ({first_line(error)})") from error
    for name, values in found.items():
        if values.dtype.kind not in "iub" or values.shape[:1] != found["input_ids"].shape:
            raise ModelError(f"{named} gives {name} of another form than a number, or numbers, for each token")
    return sorted(found.keys() - {"input_ids", TYPES, "attention_mask"})


def default_max_length(loaded: Loaded) -> int:
    """The tokens to keep of a text: the least of the tokenizer's limit, the model's places and 512."""
    limits = (loaded.tokenizer.model_max_length, longest_text(loaded.model), DEFAULT_MAX_LENGTH)
    return min(int(limit) for limit in limits if limit)


def longest_text(model: Any) -> int | None:
    """Tokens that the model has places for; None if it sets no limit.

    RoBERTa and its kin count places from the padding token's id on, so that the first ones are never used.
    """
    places = getattr(text_config(model), "max_position_embeddings", None)
    if not isinstance(places, int) or places < 1:
        return None
    words = word_embeddings(model)
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module is not words and module.num_embeddings == places:
            return places if module.padding_idx is None else places - module.padding_idx - 1
    return places


def mask_of(lengths: Tensor, longest: int) -> Tensor:
    """1 at the first `lengths` places of each sample, else 0: int64 (B, longest)."""
    return (torch.arange(longest, device=lengths.device) < lengths[:, None]).long()


def text_config(model: Any) -> Any:
    """The config of the model's text part: the whole config, unless the model has several modalities."""
    return model.config.get_text_config()


def word_embeddings(model: Any) -> nn.Module | None:
    """The table of the model's vocabulary; None if it has none of the usual kind (CANINE hashes characters)."""
    try:
        table: nn.Module | None = model.get_input_embeddings()
    except NotImplementedError:
        return None
    return table


def _pad_id(loaded: Loaded) -> int:
    tokenizer, config = loaded.tokenizer, text_config(loaded.model)
    if tokenizer.pad_token_id is None:
        token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
        if token is None:
            raise ModelError(f"model {loaded.name!r}: its tokenizer has no token to pad with; give it a pad_token")
        tokenizer.pad_token = token
    known = getattr(config, "pad_token_id", None)
    if known is None or known < 0:
        config.pad_token_id = tokenizer.pad_token_id
    return int(config.pad_token_id)


def _ordinary_id(tokenizer: Any, pad: int) -> int:
    special = {*tokenizer.all_special_ids, pad}
    return next(number for number in range(len(special) + 1) if number not in special)


def inputs_of(batch: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The batch on the model's device."""
    device = next(model.parameters()).device
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
