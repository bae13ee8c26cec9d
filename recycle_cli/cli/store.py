"""The commands that look after a store: info, verify, gc and export; `stored_records.py` has the others."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from recycle_cli.cli.arguments import StoreFolder
from recycle_cli.cli.help import Command, Group
from recycle_cli.cli.options import Asked, own, with_options
from recycle_cli.cli.stored_records import REMOVED, contains, find, merge, remove
from recycle_cli.disk import STDOUT, expanded
from recycle_cli.errors import DamageError, UnreadError, UsageError
from recycle_cli.reports import bar, counted, following, say, show, show_fields, show_json, show_rows, spinner
from recycle_cli.settings import PrecomputeSettings

store_app = typer.Typer(cls=Group, help="Look after a store: what it holds, whether it is whole, and removing.")


@store_app.command(cls=Command)
@with_options()
def info(
    store: StoreFolder,
    asked: Asked,
    segments: Annotated[bool, own("segments", "List the segments as well.")] = False,
) -> None:
    """Show the recipe and the sizes of STORE, who is writing to it, and what interrupted writers left behind."""
    from recycle_cli.store import info as run

    found = run(store, segments=segments)
    if asked["as_json"]:
        show_json(found)
        return
    tables = {name: found.pop(name, []) for name in ("writers", "leftovers", "segment_list")}
    for title, fields in _described(found).items():
        show_fields(title, fields)
    for name, rows in tables.items():
        if rows:
            show_rows(name.replace("_", " ").capitalize(), rows)


def _described(found: dict[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What there is to know of a store, by the titles of its tables; each value has a name that says what it is."""
    recipe, provenance, cuts, codecs = (found.pop(name) for name in ("recipe", "provenance", "cuts", "codecs"))
    architecture, digests = recipe.pop("architecture"), recipe.pop("cuts")
    for cut, about in cuts.items():
        shape = about["row_shape"]
        found[f"row at cut {cut}"] = None if shape is None else f"{' x '.join(map(str, shape))} values"
    found["compression"] = [f"{codec} ({counted(count, 'segment')})" for codec, count in codecs.items()]
    found["samples made as"] = _briefly(found.pop("origins"))
    recipe |= {f"digest of the trunk at cut {cut}": digest for cut, digest in digests.items()}
    recipe["digest of the preprocessor"] = recipe.pop("preprocessor")
    return {"Recipe": recipe, "Architecture": architecture, "Made by": provenance, "Store": found}


def _briefly(origins: list[str]) -> list[str]:
    """How samples were made of records, the views of images by their number alone."""
    from recycle_cli.store import UNKNOWN, views_in

    others = [one for one in origins if not views_in([one]) and one != UNKNOWN]
    views = len(views_in(origins))
    found = others + ([counted(views, "view")] if views else [])
    return [*found, "not said by all segments"] if UNKNOWN in origins else found


@store_app.command(cls=Command)
@with_options()
def verify(
    store: StoreFolder,
    asked: Asked,
    repair: Annotated[
        bool, own("repair", "Set damaged segments aside, so that precompute fills them in again.")
    ] = False,
    workers: Annotated[
        int | None, own("workers", "Read with this many threads; by default one for each core.", minimum=1)
    ] = None,
) -> None:
    """Read every byte of STORE and name each damaged segment, file and byte range; exit with 4 if damage is left, and
    with 7 if something could not be read."""
    from recycle_cli.store import verify as run

    with bar("verify", unit="bytes") as progress:
        found = run(store, repair=repair, workers=workers, progress=following(progress))
    _show_verified(found, as_json=asked["as_json"])
    if found["damaged"] and not repair:
        say(f"recycle: {store} is damaged; `recycle store verify {store} --repair` sets the damaged segments aside")
        raise typer.Exit(DamageError.exit_code)
    if found["unread"]:
        say(f"recycle: parts of {store} could not be read, and were left as they are; make them readable and run again")
        raise typer.Exit(UnreadError.exit_code)


def _show_verified(found: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    damaged = len({damage["segment"] for damage in found["damaged"]})
    tables = {name: found[name] for name in ("damaged", "unread")}
    summary = {name: value for name, value in found.items() if name not in tables}
    show_fields(
        "Verified", {**summary, "damaged": f"{damaged} of {found['segments']} segments" if damaged else "nothing"}
    )
    for name, rows in tables.items():
        if rows:
            show_rows(name.capitalize(), rows)
    if found["set_aside"]:
        count = counted(found["set_aside_samples"], "sample")
        say(f"set aside, with {count}; the next precompute fills in what they held")


@store_app.command(cls=Command)
@with_options()
def gc(
    store: StoreFolder,
    asked: Asked,
    dry_run: Annotated[bool, own("dry-run", "Only count what would be removed.")] = False,
    damaged: Annotated[bool, own("damaged", "Also remove what verify --repair set aside.")] = False,
    segment_bytes: Annotated[
        int,
        own(
            "segment-bytes",
            "Merge segments smaller than an eighth of this into such of about this many bytes.",
            usual=False,
            minimum=1,
        ),
    ] = PrecomputeSettings.segment_bytes,
) -> None:
    """Free space: remove what interrupted writers left and what is stored twice, and merge small segments."""
    from recycle_cli.store import gc as run

    with spinner("looking for what can go" if dry_run else "freeing space"):
        found = run(store, segment_bytes=segment_bytes, damaged=damaged, dry_run=dry_run)
    if asked["as_json"]:
        show_json(found)
    else:
        show_fields("Would collect" if dry_run else "Collected", found, REMOVED)


@store_app.command(cls=Command)
@with_options()
def export(
    store: StoreFolder,
    asked: Asked,
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="A .safetensors file, - for stdout, or a folder for NumPy files.")
    ],
    cut: Annotated[
        str | None, own("cut", "Write the activations at this cut; by default the store's only one.")
    ] = None,
    key: Annotated[
        list[str] | None, own("key", "Write only the sample with this key of 32 hexadecimal digits. May be repeated.")
    ] = None,
    text: Annotated[list[str] | None, own("text", "Write only the sample that is this text. May be repeated.")] = None,
    limit: Annotated[int | None, own("limit", "Write at most this many samples.", minimum=1)] = None,
    format: Annotated[Literal["safetensors", "numpy"], own("format", "Format of the files.")] = "safetensors",
) -> None:
    """Write samples of STORE for other programs, as one safetensors file or a folder of NumPy files."""
    from recycle_cli.store import export as run

    if out == STDOUT and asked["as_json"]:
        raise UsageError("--json prints its object on stdout, where - writes the samples; leave out one")
    with spinner("writing the samples"):
        found = run(store, expanded(out), cut=cut, keys=key or (), texts=text or (), limit=limit, format=format)
    show(found, "Exported", as_json=asked["as_json"])


for _command in (find, contains, remove, merge):
    store_app.command(cls=Command)(_command)
