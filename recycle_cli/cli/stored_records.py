"""The store's commands about records and whole stores: remove, merge, contains, find."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recycle_cli.cli.arguments import Corpus, StoreFolder, failures_beside
from recycle_cli.cli.options import Asked, filled, own, with_options
from recycle_cli.errors import MissingError
from recycle_cli.reports import bar, counted, following, say, show, show_fields, show_json, show_rows
from recycle_cli.settings import CorpusSettings, SampleSettings, ViewSettings

if TYPE_CHECKING:
    from recycle_cli.verbs.stored_records import Wanted

SHOWN_RECORDS = 20
"""Records that a table lists; --json has all."""

REMOVED = {
    "asked": "samples asked for",
    "copies": "copies of samples",
    "rewritten": "segments rewritten",
    "removed": "segments removed",
    "writers": "writers at work",
}
"""What the counts of `remove` and `gc` are called in a table."""

_LABELS = ("label-column",)


@with_options(CorpusSettings, ViewSettings, SampleSettings, leave_out=_LABELS)
def remove(
    store: StoreFolder,
    corpus: Corpus,
    asked: Asked,
    dry_run: Annotated[bool, own("dry-run", "Only count what would be removed.")] = False,
) -> None:
    """Remove from STORE what it holds of the texts or images in CORPUS, by their content."""
    from recycle_cli.verbs.stored_records import remove_records as run

    found = run(_wanted(asked, corpus, store), store, dry_run=dry_run)
    if asked["as_json"]:
        show_json(found)
    else:
        show_fields("Would remove" if dry_run else "Removed", found, REMOVED)
    if found["unknown_records"]:
        say(
            f"{store} holds nothing of {found['unknown_records']:,} of the {found['records']:,} records as they are "
            "read here"
        )
    _tell_of_others(store, found["other_origins"])
    if found["set_aside"]:
        say(f"{store} has damaged parts, which may hold these records too; `recycle store gc --damaged` removes them")
    if found["writers"]:
        at_work = counted(found["writers"], "writer")
        say(f"{at_work} at work may add these records again; run this again when nobody writes to the store")


@with_options()
def merge(
    store: StoreFolder,
    into: Annotated[str, typer.Argument(metavar="INTO", help="Folder or URL of the store that is added to.")],
    asked: Asked,
) -> None:
    """Copy to the store INTO what it lacks of STORE; both must have the same recipe, and STORE is only read."""
    from recycle_cli.store import merge as run

    with bar("merge") as progress:
        found = run(store, into, progress=following(progress))
    show(found, "Merged", as_json=asked["as_json"])


@with_options(CorpusSettings, ViewSettings, SampleSettings, leave_out=_LABELS)
def contains(store: StoreFolder, corpus: Corpus, asked: Asked) -> None:
    """Say which records of CORPUS are in STORE; exit with 5 if one is missing."""
    from recycle_cli.verbs.stored_records import contained as run

    found = run(_wanted(asked, corpus, store), store)
    if asked["as_json"]:
        show_json(found)
    else:
        _show_contained(found)
    if found["missing"]:
        raise typer.Exit(MissingError.exit_code)


@with_options()
def find(
    store: StoreFolder,
    asked: Asked,
    text: Annotated[str | None, own("text", "Look for this text.")] = None,
    text_pair: Annotated[str | None, own("text-pair", "Look for the pair of --text and this second text.")] = None,
    file: Annotated[str | None, own("file", "Look for the image in this file, or for the text in it.")] = None,
) -> None:
    """Say where STORE holds a text, a pair of texts or an image: its key, segments and rows; exit with 5 if nowhere."""
    from recycle_cli.verbs.stored_records import found as run

    found = run(store, text=text, text_pair=text_pair, file=file)
    if asked["as_json"]:
        show_json(found)
    else:
        copies = found.pop("copies")
        found |= {
            f"row at cut {cut}": f"{' x '.join(map(str, shape))} values" for cut, shape in found.pop("cuts").items()
        }
        show_fields("Found" if found["held"] else "Not held", found)
        if copies:
            show_rows("Copies", copies)
    if not found["held"]:
        raise typer.Exit(MissingError.exit_code)


def _tell_of_others(store: str, origins: Sequence[str]) -> None:
    """What else the store may hold of the records: samples that were made of them in another way."""
    from recycle_cli.store import RECORD, UNKNOWN

    ways = ["records as they are (no --task)" if one == RECORD else one for one in origins if one != UNKNOWN]
    if ways:
        say(
            f"{store} holds samples that were made in other ways, and maybe of these records: {'; '.join(ways)}; run "
            "this again for each of them"
        )
    if UNKNOWN in origins:
        say(
            f"{store} has segments that do not say how their samples were made (those of an older version or another "
            "program); of what they hold, windows and other samples of a task are found with the --task and --stride "
            "that made them, and views of images with their --views and --augment"
        )


def _wanted(asked: Asked, corpus: list[str], store: str) -> "Wanted":
    from recycle_cli.verbs.stored_records import Wanted

    failures = asked["failures"] or failures_beside(store)
    records = filled(CorpusSettings, asked, source=tuple(corpus), failures=failures)
    return Wanted(records, filled(SampleSettings, asked), filled(ViewSettings, asked))


def _show_contained(found: Mapping[str, Any]) -> None:
    lists = {name: found[name] for name in ("missing_records", "held_records")}
    show_fields("Contains", {name: value for name, value in found.items() if name not in lists})
    for name, ids in lists.items():
        if ids:
            more = f"and {len(ids) - SHOWN_RECORDS:,} more; --json lists all" if len(ids) > SHOWN_RECORDS else ""
            show_rows(name.replace("_", " ").capitalize(), [{"record": one} for one in ids[:SHOWN_RECORDS]], more)
