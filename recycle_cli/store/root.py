"""The root of a store, which holds its recipe: made once in one atomic step, never changed, checked when read."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from recycle_cli.errors import DamageError, MismatchError, StoreError
from recycle_cli.recipe import DTYPES, Recipe
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
from recycle_cli.store.patient import ReadError
from recycle_cli.store.place import Place, ReadablePlace

GROUPS = (SEGMENTS, SCRATCH, INDEX, DAMAGED)


def create_root(place: Place, recipe: Recipe, provenance: Mapping[str, str]) -> None:
    """Make an empty store unless there is one. The root's document comes last, so that it proves a store complete."""
    if place.is_store():
        return
    check_recipe(recipe, place.where(""))
    place.begin()
    for group in GROUPS:
        place.create(f"{group}/{DOCUMENT}", dumps(group_document()))
    place.create(DOCUMENT, _document(recipe, provenance))


def _document(recipe: Recipe, provenance: Mapping[str, str]) -> bytes:
    record = {
        "version": FORMAT_VERSION,
        "recipe": recipe.to_json(),
        "fingerprint": recipe.fingerprint,
        "provenance": dict(provenance),
    }
    return dumps(sealed(group_document({"recycle": record})))


def read_root(
    place: ReadablePlace, asked: Recipe | None = None, model: str | None = None
) -> tuple[Recipe, dict[str, str]]:
    """Read the store's recipe and provenance. `asked` is the recipe of the model of the name `model`.

    Raises StoreError if it is no store, MismatchError if `asked` differs.
    """
    where = place.where("")
    if not place.is_store():
        is_missing = place.is_local and not os.path.lexists(where)
        said = "no such file or folder" if is_missing else f"not a store (no {DOCUMENT})"
        raise StoreError(f"{where}: {said}; name a store made by `recycle precompute`")
    document = loads(place.document(DOCUMENT), place.where(DOCUMENT))
    check_version(document, where)
    record = unsealed(document, place.where(DOCUMENT))
    recipe = _recipe(record, where)
    provenance = record.get("provenance")
    if not isinstance(provenance, dict):
        raise StoreError(f"{where}: provenance {provenance!r:.80}, an object was expected")
    refusal = recipe.refusal(asked, provenance.get("model"), model) if asked is not None else None
    if refusal:
        raise MismatchError(f"{where}: {refusal}")
    return recipe, {str(name): str(value) for name, value in provenance.items()}


def root_problem(place: ReadablePlace) -> str | None:
    """The damage of the root's document, or None.

    Raises StoreError if another program or a newer version of the format made it, and no segment says otherwise.
    """
    where = place.where(DOCUMENT)
    if not place.is_store() and place.has_begun():
        return f"{where}: missing; run `recycle store verify --repair`"
    try:
        read_root(place)
        data = place.document(DOCUMENT)
        return None if dumps(loads(data, where)) == data else f"{where}: not the canonical JSON that was sealed"
    except DamageError as error:
        return str(error)
    except StoreError as error:
        if not place.is_store() or next(_sealed_with(place), None) is None:
            raise
        return str(error)


def mended_root(place: ReadablePlace) -> tuple[Recipe, bytes] | None:
    """The recipe in a damaged root, if it is the one that a segment was sealed with, and the document made anew.

    The fingerprint in the segment proves the recipe. The provenance, which nothing proves, is kept as it was found.
    Raises ReadError if what would prove it cannot be read.
    """
    try:
        record = loads(place.document(DOCUMENT), place.where(DOCUMENT))["attributes"]["recycle"]
        recipe = Recipe.from_json(record["recipe"])
        check_recipe(recipe, place.where(""))
    except ReadError as error:
        if not error.is_damage:
            raise
        return None
    except (StoreError, KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return None
    if recipe.fingerprint not in _sealed_with(place):
        return None
    provenance = record.get("provenance")
    return recipe, _document(recipe, provenance if isinstance(provenance, dict) else {})


def _sealed_with(place: ReadablePlace) -> Iterator[str]:
    """The fingerprints in sound seals of segments of this version; then ReadError if not all could be read."""
    unread: ReadError | None = None
    for name in place.segment_names():
        document = f"{SEGMENTS}/{name}/{DOCUMENT}"
        try:
            record = unsealed(loads(place.document(document), place.where(document)), place.where(document))
            if record.get("version") == FORMAT_VERSION:
                yield str(record.get("fingerprint"))
        except ReadError as error:
            unread = unread if error.is_damage else error
        except StoreError:
            pass  # damaged, so it proves nothing
    if unread is not None:
        raise unread


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
    """Raise StoreError if the recipe's dtype or cuts cannot be stored."""
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
        raise StoreError(
            f"{where}: the recipe does not have the recorded fingerprint {record.get('fingerprint')}; run "
            "`recycle store verify --repair`"
        )
    return recipe
