"""What a model takes, and which tasks take the model, if transformers has no class of the one asked for."""

from typing import Any

import transformers
from transformers.models.auto import modeling_auto as names

from recycle_cli.errors import ModelError
from recycle_cli.models.hub import UNREADABLE, Source
from recycle_cli.models.task_layer import SEQUENCES

IDS = "input_ids"

_NOUNS = {
    "pixel_values": "images",
    "pixel_values_videos": "videos",
    "input_values": "audio",
    "input_features": "audio",
    "past_values": "time series",
}
"""Words for the main inputs of transformers' classes."""

_TEXTS = "expected a model of texts, or an image classifier"


def check_takes_texts(name: str, kind: type) -> None:
    """Raise ModelError for a class of transformers whose main input is no token ids."""
    if (taken := _taken(kind)) is not None:
        raise ModelError(f"model {name!r} ({kind.__name__}) takes {taken}, not texts; {_TEXTS}")


def unknown_kind(source: Source, place: str, auto: Any) -> str | None:
    """Why the Auto class has no model for this config, and which task takes it; None if that is not the matter."""
    try:
        config = transformers.AutoConfig.from_pretrained(place, **source.options)
    except UNREADABLE:
        return None
    if has_class(config, auto):
        return None
    bare = _class_of(config, transformers.AutoModel)
    what = f"({config.model_type}) is of a kind for which transformers has no {auto.__name__}"
    if bare is None:
        return f"{what}, and no AutoModel either; {_TEXTS}"
    if (taken := _taken(bare)) is not None:
        return f"({config.model_type}) takes {taken}, not texts; {_TEXTS}"
    if config.is_encoder_decoder:
        remedy = ", or `--head mlp`, which takes the encoder alone" if auto.__name__ == SEQUENCES else ""
        return f"{what}; expected an encoder or a decoder with such a class{remedy}"
    if auto is transformers.AutoModel:
        return None
    also = ", and so does `--head mlp`" if auto.__name__ == SEQUENCES else ""
    return f"{what}; `--task similarity` takes it, by AutoModel{also}"


def has_class(config: Any, auto: Any) -> bool:
    """Whether transformers, or the model's own code, has a class of this kind for the config."""
    return _class_of(config, auto) is not None or auto.__name__ in (getattr(config, "auto_map", None) or {})


def _class_of(config: Any, auto: Any) -> Any:
    """The model's class; None if the Auto class has none for such a config."""
    mapping = auto._model_mapping
    found = mapping.get(type(config), None)
    return found[0] if isinstance(found, tuple | list) else found


def _taken(kind: Any) -> str | None:
    """What a class takes, in words; None for token ids, and for a name that does not say."""
    given = getattr(kind, "main_input_name", IDS)
    given = given[0] if isinstance(given, list) else given
    if given in (IDS, "inputs"):
        return None
    model_type = getattr(getattr(kind, "config_class", None), "model_type", "")
    if given == "pixel_values" and model_type in names.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES:
        return f"videos ({given})"
    return f"{_NOUNS.get(given, 'other inputs')} ({given})"
