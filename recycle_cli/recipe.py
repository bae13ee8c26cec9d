"""The recipe of a store: everything that decides the trunk's output, as plain data. Its digest is the fingerprint."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import Any

import xxhash

RECIPE_VERSION = 1

DTYPES = ("float16", "bfloat16", "float32", "int8", "int4")

GROUP = 16
"""Numbers of an int4 row that share a scale."""

GROUP_BYTES = GROUP // 2 + 1
"""Bytes of a group of an int4 row: two numbers a byte, and the group's scale."""

_NUMBER_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "int8": 1}
_SCALE_BYTES = {"int8": 4, "int4": 4}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the rows of a store. Paths, batch sizes and worker counts are not part of it.

    `cuts` maps each cut's name to a digest of the trunk's weights up to there (names, dtypes, shapes, bytes). So
    renaming the model's folder changes nothing, and changing a single weight changes the recipe.
    """

    modality: str
    architecture: Mapping[str, Any]
    cuts: Mapping[str, str]
    preprocessor: str
    max_length: int | None = None
    view: str = "plain"
    dtype: str = "float16"
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """xxh3_128 of the canonical JSON, 32 hexadecimal digits."""
        return canonical_digest({"version": RECIPE_VERSION, **asdict(self)})

    def to_json(self) -> dict[str, Any]:
        """Convert to a dictionary ready for JSON; `from_json` is the inverse."""
        return json.loads(canonical_json(asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Recipe":
        """Rebuild a recipe. Raises KeyError or TypeError if a field is missing or unknown."""
        return cls(**data)

    @property
    def precision(self) -> str:
        """The precision in which the trunk computes. The head may compute in another."""
        return str(self.extra.get("precision", "float32"))

    def computed_in(self, precision: str) -> "Recipe":
        """Return the recipe with the trunk computing in this precision; float32 is the default and is left out."""
        rest = {name: value for name, value in self.extra.items() if name != "precision"}
        return replace(self, extra=rest if precision == "float32" else {**rest, "precision": precision})

    @property
    def poolings(self) -> tuple[str, ...]:
        """How the rows of a sample are pooled, each pooling being a row of the store; none if they are not."""
        return tuple(str(self.extra["pool"]).split(",")) if "pool" in self.extra else ()

    def pooled_by(self, poolings: Sequence[str]) -> "Recipe":
        """Return the recipe with the rows of a sample pooled in these ways; without any it is left as it is."""
        return replace(self, extra={**self.extra, "pool": ",".join(poolings)}) if poolings else self

    @property
    def unpooled(self) -> "Recipe":
        """The recipe of the rows that are pooled."""
        return replace(self, extra={name: value for name, value in self.extra.items() if name != "pool"})

    def at(self, *cuts: str) -> "Recipe":
        """Return the recipe of only these cuts."""
        return replace(self, cuts={cut: self.cuts[cut] for cut in cuts})

    def of_another_model(self, asked: "Recipe") -> bool:
        """Whether `asked` has another architecture, or other weights up to a cut that both have."""
        shared = self.cuts.keys() & asked.cuts.keys()
        same = self.modality == asked.modality and dict(self.architecture) == dict(asked.architecture)
        return not same or any(self.cuts[cut] != asked.cuts[cut] for cut in shared)

    def refusal(self, asked: "Recipe", made_with: str | None, asked_with: str | None) -> str | None:
        """Why a store of this recipe cannot be used as `asked`, and the remedy; None if it can be.

        made_with, asked_with  the names of the two models; None if they are not known
        """
        if (difference := self.difference(asked)) is None:
            return None
        if not self.of_another_model(asked) or made_with is None or asked_with is None:
            remedy = "use the options it was made with"
            if self.cuts.keys() != asked.cuts.keys() and replace(self, cuts=asked.cuts) == asked:
                remedy = f"take {' '.join(f'--cut {cut}' for cut in self.cuts)}, with which it was made"
            return f"made with another recipe ({difference}): {remedy}, or another store"
        if difference.startswith("cuts."):
            difference = "their weights differ"
        if made_with == asked_with:
            return f"made with {made_with} as it was then ({difference}): use another store, or the model of then"
        return f"made with the model {made_with}, not with {asked_with} ({difference}): use that one, or another store"

    def difference(self, asked: "Recipe") -> str | None:
        """Name the fields in which `asked` differs from this recipe of a store; None if they are equal.

        The form is `field: A in the store, B asked for; another: ...`. If the names of the cuts differ, they are shown
        in place of the digests, and for another model the first field alone.
        """
        another = self.of_another_model(asked)
        mine, asked_for = (_flat(one.to_json()) for one in (self, asked))
        if self.cuts.keys() != asked.cuts.keys() and not another:
            mine, asked_for = (
                {"cuts": ", ".join(one.cuts) or None, **_flat({**one.to_json(), "cuts": {}})} for one in (self, asked)
            )
        names = [name for name in dict.fromkeys([*mine, *asked_for]) if mine.get(name) != asked_for.get(name)]
        shown = names[:1] if another else names
        return "; ".join(_differing(name, mine.get(name), asked_for.get(name)) for name in shown) or None


def stored_shape(row_shape: Sequence[int], dtype: str) -> tuple[int, ...]:
    """The shape of a row as it is stored: its own, but for int4 the bytes of its groups one after another."""
    return (-(-prod(row_shape) // GROUP) * GROUP_BYTES,) if dtype == "int4" else tuple(row_shape)


def row_bytes(row_shape: Sequence[int], dtype: str) -> int:
    """Bytes that a store keeps of one row, with the row's scale if the dtype has one."""
    return prod(stored_shape(row_shape, dtype)) * _NUMBER_BYTES.get(dtype, 1) + _SCALE_BYTES.get(dtype, 0)


def has_scales(dtype: str) -> bool:
    """Whether a store of this dtype keeps a float32 scale for each row."""
    return dtype in _SCALE_BYTES


def canonical_json(data: Mapping[str, Any]) -> str:
    """Serialise to JSON with sorted keys and no spaces, so that equal data give equal bytes."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical_digest(data: Mapping[str, Any]) -> str:
    """xxh3_128 of the canonical JSON, 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(canonical_json(data).encode())


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _differing(name: str, stored: Any, asked: Any) -> str:
    return f"{name}: {_shown(stored)} in the store, {_shown(asked)} asked for"


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)
