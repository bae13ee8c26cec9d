"""The file of `finetune --heads`: the heads that train together, each option written as on the command line."""

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer

from recycle_cli.errors import UsageError
from recycle_cli.settings import (
    AdapterSettings,
    EmbeddingSettings,
    HeadSettings,
    SimilaritySettings,
    TrainingSettings,
    ViewSettings,
)

OWN = (
    "label-column",
    "epochs",
    "learning-rate",
    "weight-decay",
    "warmup-share",
    "max-grad-norm",
    "class-weights",
    "metric",
    "patience",
    "eval-steps",
    "seed",
    "adapter",
    "adapter-rank",
    "adapter-alpha",
    "adapter-width",
    "adapter-layers",
    "adapter-dropout",
    "adapter-save",
    "mixup",
    "cutmix",
    "loss",
    "margin",
    "temperature",
    "embedding",
    "embedding-size",
)
"""What each head may have its own way; at the top of the file it is what all have that do not say otherwise."""

SHARED = (
    "batch-size",
    "accumulation",
    "order-seed",
    "save-steps",
    "on-missing",
    "parity-check",
    "memory",
    "in-memory",
    "views",
    "augment",
    "group-samples",
)
"""What decides which batches there are and when all stop: at the top of the file, or on the command line."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def training_settings(options: Mapping[str, Any]) -> TrainingSettings:
    """The options of `recycle finetune` that say how to train, as one."""
    adapter = AdapterSettings(
        options["adapter"],
        options["adapter_rank"],
        options["adapter_alpha"],
        options["adapter_dropout"],
        options["adapter_save"],
        options["adapter_width"],
        tuple(name.strip() for name in (options["adapter_layers"] or "").split(",") if name.strip()),
    )
    similarity = SimilaritySettings(
        options["loss"],
        options["margin"],
        options["temperature"],
        options["group_samples"],
        EmbeddingSettings(options["embedding"], options["embedding_size"]),
    )
    parts: dict[str, Any] = {
        "adapter": adapter,
        "similarity": similarity,
        "views": ViewSettings(options["views"], options["augment"]),
    }
    own = {name: options[name] for name in TrainingSettings.__dataclass_fields__ if name not in parts}
    return TrainingSettings(**own, **parts)


def head_settings(path: str, context: typer.Context) -> list[HeadSettings]:
    """The heads of a TOML file. A head's own key comes before one at the top, and that before the command line.

    Raises UsageError, naming file, head and key, for what is no option, no value of it, or not a head's to choose.
    """
    content = _read(path)
    tables = content.pop("head", None)
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{path}: no [[head]] in it; give each head a table [[head]] with a name")
    shared = {**context.params, **_values(content, path, (*OWN, *SHARED), context)}
    shared["order_seed"] = shared["seed"] if shared["order_seed"] is None else shared["order_seed"]
    heads = [_head(table, f"{path}, head {number}", shared, context) for number, table in enumerate(tables, 1)]
    seen: set[str] = set()
    for head in heads:
        if head.name.lower() in seen:
            raise UsageError(
                f"{path}: two heads have the name {head.name!r}; each RUN is OUTPUT/NAME, so name each anew"
            )
        seen.add(head.name.lower())
    return heads


def _head(table: dict[str, Any], where: str, shared: Mapping[str, Any], context: typer.Context) -> HeadSettings:
    name = table.pop("name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"{where}: name = {name!r}; expected letters, digits, '.', '_' and '-': its RUN is OUTPUT/NAME"
        )
    options = {**shared, **_values(table, f"{where} ({name})", OWN, context)}
    return HeadSettings(name, training_settings(options), options["label_column"])


def _read(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--heads {path}: {error.strerror}; give a TOML file") from error
    except ValueError as error:
        raise UsageError(f"--heads {path} is no TOML: {error}") from error


def _values(table: Mapping[str, Any], where: str, known: tuple[str, ...], context: typer.Context) -> dict[str, Any]:
    """Values by the names of the command's parameters, checked as the command line checks them."""
    parameters = {name.removeprefix("--"): one for one in context.command.params for name in one.opts}
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{where}: {_refused(key, known)}")
        parameter = parameters[key]
        if isinstance(value, list | dict):
            raise UsageError(f"{where}: {key} = {value!r}; expected a single value")
        try:
            found[str(parameter.name)] = parameter.type.convert(str(value), parameter, context)
        except typer.BadParameter as error:
            raise UsageError(f"{where}: {key} = {value!r}: {' '.join(error.message.split())}") from None
    return found


def _refused(key: str, known: tuple[str, ...]) -> str:
    if key in SHARED:
        return f"{key} is the same for all heads, which train on the same batches; set it at the top of the file"
    near = get_close_matches(key.replace("_", "-"), known, n=1)
    return f"{key!r} is no option of a head" + (f"; did you mean {near[0]}" if near else f": {', '.join(known)}")
