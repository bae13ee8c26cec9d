"""The commands that look after a store: info, verify, gc and export."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from recycle_cli.cli import options as o
from recycle_cli.cli.app import app
from recycle_cli.errors import DamageError
from recycle_cli.reports import bar, say, show_fields, show_rows

store_app = typer.Typer(help="Look after a store: info, verify, gc, export.", no_args_is_help=True)
app.add_typer(store_app, name="store")


@store_app.command()
def info(
    store: o.StoreArgument,
    segments: Annotated[bool, o.option("--segments", "List the segments too")] = False,
    as_json: o.Json = False,
) -> None:
    """Recipe, sizes, segments, writers at work and leftovers of dead ones."""
    from recycle_cli.store import info as run

    found = run(store, segments=segments)
    if as_json:
        print(json.dumps(found))
        return
    recipe, provenance = found.pop("recipe"), found.pop("provenance")
    architecture = recipe.pop("architecture")
    tables = {name: found.pop(name, []) for name in ("writers", "leftovers", "segment_list")}
    # Tables of their own: names of one part, not of three, fit into 80 columns.
    parts = {"Recipe": recipe, "Architecture": architecture, "Made by": provenance, "Store": found}
    for title, fields in parts.items():
        show_fields(title, fields)
    for name, rows in tables.items():
        if rows:
            show_rows(name.replace("_", " ").capitalize(), rows)


@store_app.command()
def verify(
    store: o.StoreArgument,
    repair: Annotated[bool, o.option("--repair", "Set damaged segments aside, for precompute to refill")] = False,
    workers: Annotated[int | None, o.option("--workers", "Threads; else one a core", min=1)] = None,
    as_json: o.Json = False,
) -> None:
    """Read every byte of STORE and name each damaged segment, file and byte range; exit 4 where damage stays."""
    from recycle_cli.store import verify as run

    with bar("verify") as progress:
        done = 0

        def advance(read: int, total: int) -> None:
            nonlocal done
            progress.update(max(0, read - done), total=total)
            done = max(done, read)

        found = run(store, repair=repair, workers=workers, progress=advance)
    _show_verified(found, as_json=as_json)
    if found["damaged"] and not repair:
        say(f"recycle: {store} is damaged; `recycle store verify {store} --repair` sets the damaged segments aside")
        raise typer.Exit(DamageError.exit_code)


def _show_verified(found: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    count = len({damage["segment"] for damage in found["damaged"]})
    show_fields("Verified", {**found, "damaged": f"{count} of {found['segments']} segments" if count else "nothing"})
    if found["damaged"]:
        show_rows("Damaged", found["damaged"])
    if found["set_aside"]:
        say("set aside; the next precompute fills in what they held")


@store_app.command()
def gc(
    store: o.StoreArgument,
    dry_run: Annotated[bool, o.option("--dry-run", "Only count what would go")] = False,
    damaged: Annotated[bool, o.option("--damaged", "Remove what verify --repair set aside, too")] = False,
    as_json: o.Json = False,
) -> None:
    """Give space back: leftovers of dead writers, duplicates between writers, segments too small to be worth it."""
    from recycle_cli.store import gc as run

    found = run(store, damaged=damaged, dry_run=dry_run)
    if as_json:
        print(json.dumps(found))
    else:
        show_fields("Would collect" if dry_run else "Collected", found)


@store_app.command()
def export(
    store: o.StoreArgument,
    out: Annotated[str, typer.Argument(metavar="OUT", help="A .safetensors file, or a folder for NumPy files")],
    cut: o.Cut = None,
    key: Annotated[list[str] | None, o.option("--key", "Only this sample (32 hexadecimal digits); may repeat")] = None,
    limit: Annotated[int | None, o.option("--limit", "At most so many samples", min=1)] = None,
    format: Annotated[Literal["safetensors", "numpy"], o.option("--format", "What to write")] = "safetensors",
    as_json: o.Json = False,
) -> None:
    """Write samples of STORE for people outside, as one safetensors file or a folder of NumPy files."""
    from recycle_cli.store import export as run

    found = run(store, out, cut=cut, keys=key, limit=limit, format=format)
    if as_json:
        print(json.dumps(found))
    else:
        show_fields("Exported", found)
