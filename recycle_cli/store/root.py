"""The root of a store: made once in one atomic step, and read with every mismatch named."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recycle_cli.errors import MismatchError, StoreError
from recycle_cli.recipe import DTYPES, Recipe
from recycle_cli.store.files import read_document, sync_folder, write_file
from recycle_cli.store.layout import (
    DAMAGED,
    DOCUMENT,
    FORMAT_VERSION,
    INDEX,
    SCRATCH,
    SEGMENTS,
    dumps,
    group_document,
    is_name,
    loads,
    sealed,
    unsealed,
)
from recycle_cli.store.liveness import unique_id

_GROUPS = (SEGMENTS, SCRATCH, INDEX)


def create_root(path: Path, recipe: Recipe, provenance: Mapping[str, str]) -> None:
    """Make an empty store unless there is one. Errors of the operating system come through."""
    if (path / DOCUMENT).exists():
        return
    check_recipe(recipe, str(path))
    if path.exists() and (not path.is_dir() or not _only_beginnings(path)):
        raise StoreError(f"{path}: not a store, and not empty; choose a new folder")
    record = {
        "version": FORMAT_VERSION,
        "recipe": recipe.to_json(),
        "fingerprint": recipe.fingerprint,
        "provenance": dict(provenance),
    }
    for group in _GROUPS:
        (path / group).mkdir(parents=True, exist_ok=True)
        create_file(path / group / DOCUMENT, dumps(group_document()))
    create_file(path / DOCUMENT, dumps(sealed(group_document({"recycle": record}))))
    sync_folder(path.resolve().parent)


def read_root(path: Path, asked: Recipe | None = None) -> tuple[Recipe, dict[str, str]]:
    """Recipe and provenance of the store. Raises StoreError where it is none, MismatchError where `asked` differs."""
    if not (path / DOCUMENT).exists():
        raise StoreError(f"{path}: not a store (no {DOCUMENT}); name one made by `recycle precompute`")
    document = loads(read_document(path / DOCUMENT), str(path / DOCUMENT))
    check_version(document, str(path))
    record = unsealed(document, str(path / DOCUMENT))
    recipe = _recipe(record, str(path))
    difference = recipe.difference(asked) if asked is not None else None
    if difference:
        raise MismatchError(
            f"{path}: made with another recipe ({difference}): use the options it was made with, or another store"
        )
    provenance = record.get("provenance")
    if not isinstance(provenance, dict):
        raise StoreError(f"{path}: provenance {provenance!r:.80}, an object was expected")
    return recipe, {str(name): str(value) for name, value in provenance.items()}


def segment_names(path: Path) -> list[str]:
    """Sealed segments in the order of their making, told by their folders alone."""
    with os.scandir(path / SEGMENTS) as entries:
        names = [entry.name for entry in entries if is_name(entry.name) and entry.name != DOCUMENT]
    return sorted(names)


def check_version(document: Mapping[str, Any], where: str) -> None:
    """Raise StoreError unless this program knows the format version."""
    attributes = document.get("attributes")
    record = attributes.get("recycle") if isinstance(attributes, dict) else None
    if not isinstance(record, dict):
        raise StoreError(f"{where}: a Zarr group, but not a store of recycle; name one made by `recycle precompute`")
    version = record.get("version")
    if type(version) is not int or version < 1:
        raise StoreError(f"{where}: format version {version!r}, a positive integer was expected")
    if version > FORMAT_VERSION:
        raise StoreError(
            f"{where}: format version {version}, this recycle reads up to {FORMAT_VERSION}; "
            f"upgrade it (`pip install -U recycle-cli`)"
        )


def check_recipe(recipe: Recipe, where: str) -> None:
    """Raise StoreError where the recipe's dtype or cuts cannot be stored."""
    if recipe.dtype not in DTYPES:
        raise StoreError(f"{where}: dtype {recipe.dtype!r}, one of {', '.join(DTYPES)} was expected")
    bad = [cut for cut in recipe.cuts if not is_name(cut)]
    if bad or not recipe.cuts:
        raise StoreError(f"{where}: cuts {bad or 'none'}; a cut is named by letters, digits, `_`, `-` and `.`")


def _recipe(record: Mapping[str, Any], where: str) -> Recipe:
    try:
        recipe = Recipe.from_json(record["recipe"])
        check_recipe(recipe, where)
        fingerprint = recipe.fingerprint
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(f"{where}: the recipe is not of this format ({error})") from None
    if fingerprint != record.get("fingerprint"):
        raise StoreError(f"{where}: the recipe does not give the fingerprint {record.get('fingerprint')}; damaged")
    return recipe


def _only_beginnings(path: Path) -> bool:
    """Whether a folder is empty, or a store but for its root: a creation cut short, or a damaged root set aside."""
    return all(entry.name in (*_GROUPS, DAMAGED) or entry.name.startswith(f".{DOCUMENT}-") for entry in path.iterdir())


def create_file(path: Path, data: bytes) -> None:
    """Write a file in one step where there is none; of several that try at once, one wins."""
    scratch = path.with_name(f".{DOCUMENT}-{unique_id()}")
    write_file(scratch, data)
    try:
        os.link(scratch, path)
    except FileExistsError:
        pass
    except OSError:
        scratch.replace(path)  # no hard links here: the last one wins, and all say the same
    scratch.unlink(missing_ok=True)
    sync_folder(path.parent)
